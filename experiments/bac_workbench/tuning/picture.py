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

GAP = 7  # points between a mark and its name
HEIGHTS = (5, -12, 16, -23, 27, -34, 38, -45)  # of a name above its mark, in points; the first that is free


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
    axis.margins(x=0.12, y=0.1)
    axis.set_ylim(bottom=floor)
    figure.draw_without_rendering()  # the layout decides where marks are
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
    """Names beside the marks, each where it covers no earlier one, or as little of them as can be."""
    scale = 72 / axis.figure.dpi  # points of a pixel
    frame = axis.get_window_extent()
    left, right, bottom, top = (side * scale for side in (frame.x0, frame.x1, frame.y0, frame.y1))
    points = {name: axis.transData.transform((x, y)) * scale for name, x, y in marks}
    taken = [(px - 4, py - 4, 8.0, 8.0) for px, py in points.values()]  # the marks themselves
    for name, x, y in sorted(marks, key=lambda mark: (mark[0] != chosen, mark[1])):
        px, py = points[name]
        width, height = 4.2 * len(name), 9.0
        boxes = [(px + aside, py + up, width, height) for up in HEIGHTS for aside in (GAP, -GAP - width)]
        boxes = [
            box
            for box in boxes
            if left < box[0] and box[0] + width < right and bottom < box[1] and box[1] + height < top
        ] or boxes
        place = min(boxes, key=lambda box: sum(_shared(box, other) for other in taken))  # the first of the best
        taken.append(place)
        axis.annotate(
            name,
            (x, y),
            xytext=(place[0] - px, place[1] - py),
            textcoords="offset points",
            fontsize=7.5,
            weight="bold" if name == chosen else "normal",
        )


def _shared(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, width, height) share."""
    sides = (
        min(one[axis] + one[2 + axis], other[axis] + other[2 + axis]) - max(one[axis], other[axis]) for axis in (0, 1)
    )
    across, up = (max(0.0, side) for side in sides)
    return across * up
