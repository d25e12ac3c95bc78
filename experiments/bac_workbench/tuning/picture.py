"""tuned.png: what every candidate costs and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bac.tuned import Tuned
from bac_workbench.tuning.candidates import FULL
from diffusion_policy.common.files import atomic_path

# Okabe and Ito's palette, told apart without colour vision; every group has a marker of its own beside it.
CHOSEN, PROVEN, TESTED, SELECTED = "#D55E00", "#0072B2", "#E69F00", "#7f7f7f"

PLACES = [(7, 5), (7, -12), (7, 16), (7, -23)]  # of a name beside its mark, in points


def plot_tuned(tuned: Tuned, path: Path) -> None:
    """Difference of the mean score to the full policy against milliseconds, with intervals where there was a proof.

    Candidates that ended in the screen have no score: they are marked on the axis of times.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    rows = [row for row in tuned.details["candidates"] if row["times"] is not None]
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axis = figure.subplots()
    margin = tuned.details["request"]["margin"]
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axhline(-margin, color="black", linewidth=1.2, linestyle="--")
    axis.annotate(
        f"margin −{margin:g}",
        (1.0, -margin),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        fontsize=8,
        ha="right",
    )
    marks = [mark for row in rows if (mark := _draw(axis, row)) is not None]
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    floor = axis.get_ylim()[0]
    screened = [row for row in rows if row["stage"] == "screen"]
    if screened:
        times = [row["times"]["ms_p50"] for row in screened]
        axis.plot(
            times, [floor] * len(times), "|", color=SELECTED, markersize=11, clip_on=False, label="left by the screen"
        )
    axis.set_ylim(bottom=floor)
    axis.set_xlabel(f"ms per action chunk (batch 1, {tuned.runtime}, log scale)")
    axis.set_ylabel("mean score minus the full policy's")
    axis.set_title(_title(tuned), fontsize=9, loc="left")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    place = {"loc": "outside lower center", "ncols": len(unique)}  # below the axes: nothing is drawn there
    figure.legend(unique.values(), unique.keys(), frameon=False, fontsize=8, **place)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
    _label(axis, marks, tuned.method)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _title(tuned: Tuned) -> str:
    claim = tuned.claim
    if claim is None:
        return f"{tuned.details['task']}: nothing faster than the full policy is proven"
    return f"{tuned.details['task']}: {tuned.method} is not worse by more than {claim.margin:g} ({claim.n} pairs)"


def _draw(axis: Any, row: Mapping[str, Any]) -> tuple[str, float, float] | None:
    """Draws a candidate; its name and place, None for one without a score."""
    ms, name = row["times"]["ms_p50"], row["candidate"]
    if name == FULL:
        axis.plot(ms, 0, "s", color="black", markersize=7, label="full policy")
        return name, ms, 0.0
    if row["proof"] is not None:
        difference = row["proof"]["looks"][-1]["difference"]
        chosen, passed = row["stage"] == "chosen", row["proof"]["passed"]
        colour, marker, text = (
            (CHOSEN, "*", "chosen") if chosen else (PROVEN, "o", "proven") if passed else (TESTED, "X", "not proven")
        )
        y = difference["mean"]
        axis.errorbar(
            ms,
            y,
            [[y - difference["low"]], [difference["high"] - y]],
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=13 if chosen else 7,
            label=f"{text} (95 %)",
        )
        return name, ms, y
    if row["selection"] is not None:
        y = row["selection"]["difference"]
        axis.plot(ms, y, "D", color=SELECTED, markersize=5, fillstyle="none", label="ended in selection")
        return name, ms, y
    return None


def _label(axis: Any, marks: list[tuple[str, float, float]], chosen: str) -> None:
    """Names beside the marks, each where it covers no earlier one if there is such a place."""
    scale = 72 / axis.figure.dpi  # points of a pixel
    taken: list[tuple[float, float, float, float]] = []
    for name, x, y in sorted(marks, key=lambda mark: (mark[0] != chosen, mark[1])):
        px, py = axis.transData.transform((x, y)) * scale
        width, height = 4.2 * len(name), 9.0
        boxes = [(px + dx, py + dy) for dx, dy in PLACES]
        free = [
            box
            for box in boxes
            if all(abs(box[0] - left) > max(width, w) or abs(box[1] - low) > h for left, low, w, h in taken)
        ]
        left, low = free[0] if free else boxes[0]
        taken.append((left, low, width, height))
        axis.annotate(
            name,
            (x, y),
            xytext=(left - px, low - py),
            textcoords="offset points",
            fontsize=7.5,
            weight="bold" if name == chosen else "normal",
        )
