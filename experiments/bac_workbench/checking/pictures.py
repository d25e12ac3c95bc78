"""The pictures of a check's page, as PNG."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from bac_workbench.checking.measure import Measured

# Okabe and Ito's palette, told apart without colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
DPI = 90


def error_picture(measured: Measured) -> bytes:
    """Error and spread of each dimension of the action, over its range in training."""
    found = measured.differences
    scale = np.where(found.scale > 0, found.scale, 1.0)
    place = np.arange(len(scale))
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axis = figure.subplots()
    axis.bar(place - 0.2, found.spreads / scale, 0.4, color=GREY, label="another noise seed of the full policy")
    axis.bar(place + 0.2, found.errors / scale, 0.4, color=BLUE, label=f"{measured.subject.name}, same noise")
    axis.set_xticks(place)
    axis.set_xlabel("dimension of the action")
    axis.set_ylabel("mean difference,\nshare of half its range")
    _legend(figure)
    return png(figure)


def position_picture(measured: Measured) -> bytes:
    """Error over spread, by position in the chunk and dimension."""
    found = measured.differences
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(found.spread > 0, found.error / found.spread, np.nan)
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axis = figure.subplots()
    top = float(np.nanmax(ratio)) if np.isfinite(ratio).any() else 1.0
    drawn = axis.imshow(ratio.T, aspect="auto", cmap="viridis", vmin=0, vmax=max(1.0, top), interpolation="nearest")
    axis.set_xlabel("position in the executed chunk")
    axis.set_ylabel("dimension")
    axis.set_xticks(range(ratio.shape[0]))
    axis.set_yticks(range(ratio.shape[1]))
    figure.colorbar(drawn, label="error / spread")
    return png(figure)


def latency_picture(measured: Measured) -> bytes:
    """The share of calls that are done after so many milliseconds."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axis = figure.subplots()
    for (name, latency), colour in zip(measured.latencies.items(), (GREY, BLUE, GREEN)):
        times = np.sort(latency.milliseconds)
        axis.step(times, np.arange(1, len(times) + 1) / len(times), where="post", color=colour, label=name)
    deadline = measured.subject.experiment.settings.deadline_ms
    if deadline is not None:
        axis.axvline(deadline, color=ORANGE, linestyle="--", label=f"deadline {deadline:g} ms")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("milliseconds of a call, log scale")
    axis.set_ylabel("share of calls done")
    _legend(figure)
    return png(figure)


def _legend(figure: Figure) -> None:
    """Above the axes, where nothing is drawn."""
    figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=4)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
