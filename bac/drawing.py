"""What all pictures share: colours, a figure without global state, a map per block, and files that appear whole.

Matplotlib is imported only when a picture is drawn, always without a display, and its global state is left alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bac.blocks import KIND_TITLES, KINDS, execution_order, parse
from bac.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
LAYOUT: Literal["constrained"] | None = "constrained"  # what keeps texts apart, and takes a third of the time
#: One colour per kind of block, taken from the colour-blind-safe palette of Okabe and Ito.
KIND_COLOURS: dict[str, str] = {"sa": "#0072B2", "ca": "#E69F00", "ffn": "#009E73", "other": "#56B4E9"}
REPAIR_COLOUR = "#AA3377"
INK = "#333333"
PAPER = "#F1F1F1"


def block_maps(
    matrices: Mapping[str, np.ndarray],
    draw: Callable[[Any, str, float, float], Any],
    title: str,
    x: str,
    y: str,
    numbers: Mapping[str, str] | None = None,
) -> Figure:
    """A panel per block, a row of them per kind and a column per layer.

    Args:
        draw: (axis, block, least and greatest number of the row) -> the drawn image.
        numbers: block -> what is written beside its name.
    """
    names = execution_order(matrices)
    ids = [parse(name) for name in names]
    kinds = [kind for kind in KINDS[ids[0].stack] if kind in {block.kind for block in ids}]
    layers = sorted({block.layer for block in ids})
    figure = new_figure(max(3.6, 1.45 * len(layers) + 1.5), 1.5 * len(kinds) + 0.9)
    axes = figure.subplots(len(kinds), len(layers), squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat:
        axis.set_axis_off()  # a layer may lack a kind; drawn panels are switched on again
    for row, kind in enumerate(kinds):
        members = [block for block in ids if block.kind == kind]
        low = min(float(np.min(matrices[block.name])) for block in members)
        high = max(float(np.max(matrices[block.name])) for block in members)
        for block in members:
            axis = axes[row, layers.index(block.layer)]
            axis.set_axis_on()
            image = draw(axis, block.name, low, high)
            last = len(matrices[block.name]) - 1
            axis.set_xticks(sorted({0, (last + 1) // 2, last}))
            axis.set_yticks(sorted({0, (last + 1) // 2, last}))
            axis.tick_params(labelsize=7, length=2)
            beside = "" if numbers is None else f" ({numbers[block.name]})"
            axis.set_title(f"{block.short}{beside}", fontsize=9, pad=3)
        axes[row, 0].set_ylabel(KIND_TITLES[kind], fontsize=9, color=KIND_COLOURS[kind], fontweight="bold")
        bar = figure.colorbar(image, ax=list(axes[row]), fraction=0.025, pad=0.01, aspect=18)
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)  # type: ignore[operator]  # matplotlib's stub calls it no method
    add_title(figure, title, 11)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    return figure


def shares(matrices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distances as shares of each block's largest one; zeros where all are zero."""
    return {name: values / (float(np.max(values)) or 1.0) for name, values in matrices.items()}


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own (not registered with pyplot) of the given size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=LAYOUT, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_title(figure: Figure, text: str, size: float) -> None:
    """A title over the whole figure, with line breaks where it is wider; `size` in points."""
    letters = int(figure.get_figwidth() * 72 / (0.56 * size))  # 0.56: width of a letter, as a share of its size
    figure.suptitle("\n".join(textwrap.fill(line, letters) for line in text.split("\n")), fontsize=size)


def hide_spines(*axes) -> None:
    for axis in axes:
        for spine in axis.spines.values():
            spine.set_visible(False)


def lay_out(figure: Figure) -> None:
    """Places the axes for good, the same in every format; what is added later does not move them."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")


def save(figure: Figure, *paths: str | Path) -> None:
    """Write the picture, in the format of each path's ending; each file appears complete or not at all."""
    endings = [_format(figure, Path(path)) for path in paths]
    lay_out(figure)
    for path, ending in zip(paths, endings):
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=ending, dpi=DPI)


def _format(figure: Figure, path: Path) -> str:
    ending = path.suffix.lstrip(".").lower()
    if ending not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"cannot draw {path.name!r}: give a file name that ends in .png, .pdf or .svg")
    return ending
