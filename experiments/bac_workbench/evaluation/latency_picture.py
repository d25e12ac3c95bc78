"""latency.png: score against latency, where the world goes on while the policy thinks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bac_workbench.settings.clock import STOPPED
from diffusion_policy.common.files import atomic_path

LATENCY = "latency.png"
STYLES = {"hold": ":", "async": "-", "rtc": "--"}
# Okabe and Ito's palette, told apart without colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def latency(row: dict[str, Any]) -> tuple[str, float]:
    """What the robot of a row of the comparison does while the policy thinks, and the median time of a chunk, ms."""
    clock = row["clock"]
    return ("", 0.0) if clock == STOPPED else (clock["thinking"], statistics.median(clock["latency_ms"]))


def plot_latency(rows: Sequence[dict[str, Any]], reference_clock: str, path: Path) -> None:
    """A line for each method and mode, with 95 % intervals; nothing where the world waits in every row.

    Args:
        rows: of a comparison.
        reference_clock: of the full policy that they are paired with, '' where the world waits.
    """
    timed = [row for row in rows if row["clock"] != STOPPED]
    if not timed:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    axis = figure.subplots()
    named = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(dict.fromkeys(map(name_of, timed)))}
    for name, thinking in dict.fromkeys((name_of(row), latency(row)[0]) for row in timed):
        line = sorted((row for row in timed if (name_of(row), latency(row)[0]) == (name, thinking)), key=latency)
        means = [row["mean_score"] for row in line]
        lows, highs = zip(*(row["interval_95"] for row in line))
        axis.errorbar(
            [latency(row)[1] for row in line],
            means,
            ([mean - low for mean, low in zip(means, lows)], [high - mean for mean, high in zip(means, highs)]),
            color=named[name],
            linestyle=STYLES.get(thinking, "-"),
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=1.2,
            elinewidth=0.6,
            label=f"{name}, {thinking}",
        )
    clock = reference_clock or "the world waits"
    axis.axhline(timed[0]["reference_mean_score"], color="black", linewidth=0.8, label=f"full policy, {clock}")
    axis.set_xlabel("latency of an action chunk, ms (median)")
    axis.set_ylabel("mean score, 95 % interval")
    axis.set_title("the world goes on while the policy thinks", fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def name_of(row: dict[str, Any]) -> str:
    """The method, with its sampler unless it is that of the full policy."""
    return str(row["label"]).rpartition(",")[0]
