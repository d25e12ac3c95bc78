"""The picture of error surge: errors of block outputs under caching, block by step, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bac.block_errors import BlockErrors
from bac.blocks import KIND_TITLES, parse
from bac.drawing import INK, add_title, new_figure
from bac_workbench.figures.maps import STEP, by_kind
from bac_workbench.figures.numbers import relative_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Style(NamedTuple):
    """How a method is drawn: colours of the palette of Okabe and Ito, lines and markers that also differ in grey."""

    colour: str
    line: Any
    marker: str


STYLES = {
    "uniform": Style("#0072B2", "-", "o"),
    "unified_acs": Style("#56B4E9", (0, (1, 1)), "v"),
    "blockwise_acs": Style("#D55E00", (0, (5, 1.5)), "s"),
    "bac": Style("#009E73", "-", "D"),
    "sacs": Style("#CC79A7", (0, (3, 1, 1, 1)), "^"),
}


@dataclass(frozen=True)
class Drawn:
    """What is said of a cache.

    Attributes:
        label: its name with its budget.
        updates, all_updates: block updates of a chunk, and without caching.
        flops: of a chunk, all tokens counted.
        action_error: mean absolute difference of the executed actions, in normalised units.
    """

    label: str
    updates: int
    all_updates: int
    flops: int
    action_error: float

    @property
    def title(self) -> str:
        return (
            f"{self.label}\n{self.updates} of {self.all_updates} updates, {self.flops / 1e9:.3g} GFLOP, "
            f"executed actions off by {self.action_error:.3f}"
        )


UNIT = "error / mean |output|"


def draw_errors(measured: BlockErrors, caches: Mapping[str, Drawn]) -> Figure:
    """A map of blocks by steps per cache, the errors by step and kind of block, and by block.

    Args:
        measured: with the errors of each cache, by its method.
        caches: by method.
    """
    relative = {method: relative_errors(measured.errors[method], measured.sizes) for method in caches}
    rows = -(-len(caches) // 2)
    n_blocks = len(measured.blocks)
    heights = [rows * (0.105 * n_blocks + 0.95) + 0.3, 2.5, 2.7]
    figure = new_figure(11.0, sum(heights) + 0.5)
    maps, steps, blocks = figure.subfigures(3, 1, height_ratios=heights)
    text = (
        "Errors of block outputs against the uncached chain with the same noise, as shares of each block's mean output"
    )
    add_title(figure, text, 11)
    _draw_maps(maps, relative, measured.blocks, caches, rows)
    _draw_by_step(steps, relative, measured.blocks)
    _draw_by_block(blocks, relative, measured.blocks, caches)
    return figure


def _draw_maps(
    figure: Any, relative: Mapping[str, np.ndarray], blocks: tuple[str, ...], caches: Mapping[str, Drawn], rows: int
) -> None:
    axes = figure.subplots(rows, min(2, len(caches)), squeeze=False, sharex=True, sharey=True)
    # A few large errors must not hide the others.
    high = max(float(np.nanquantile(np.stack(list(relative.values())), 0.99)), 1e-12)
    for axis in axes.flat[len(caches) :]:
        axis.set_axis_off()
    for axis, (method, drawn) in zip(axes.flat, caches.items()):
        image = axis.imshow(
            relative[method].T, vmin=0.0, vmax=high, cmap="cividis", aspect="auto", interpolation="nearest"
        )
        axis.set_title(drawn.title, fontsize=9, loc="left")
        axis.set_yticks(range(len(blocks)), [parse(block).short for block in blocks])
        axis.tick_params(axis="x", labelsize=8, length=2, labelbottom=True)
        axis.tick_params(axis="y", labelsize=6, length=2)
    bar = figure.colorbar(image, ax=list(axes.flat), extend="max", pad=0.01, fraction=0.03, aspect=30)
    bar.set_label(UNIT, fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    figure.supxlabel(STEP, fontsize=9)


def _draw_by_step(figure: Any, relative: Mapping[str, np.ndarray], blocks: tuple[str, ...]) -> None:
    kinds = by_kind(blocks)
    axes = figure.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (kind, members) in zip(axes, kinds.items()):
        columns = [blocks.index(block.name) for block in members]
        for method, values in relative.items():
            style = STYLES[method]
            axis.plot(values[:, columns].mean(axis=1), color=style.colour, linestyle=style.line, linewidth=1.3)
        axis.set_title(f"{KIND_TITLES[kind]}, mean over layers", fontsize=9, color=INK)
        axis.set_xlim(0, len(next(iter(relative.values()))) - 1)
        _plain(axis)
    axes[0].set_ylim(bottom=0.0)
    axes[0].set_ylabel(UNIT, fontsize=9)
    figure.supxlabel(STEP, fontsize=9)


def _draw_by_block(
    figure: Any, relative: Mapping[str, np.ndarray], blocks: tuple[str, ...], caches: Mapping[str, Drawn]
) -> None:
    axis = figure.subplots()
    for method, drawn in caches.items():
        style = STYLES[method]
        axis.plot(
            relative[method].mean(axis=0),
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=4.5,
            linewidth=1.0,
            label=drawn.label,
        )
    axis.set_xticks(range(len(blocks)), [parse(block).short for block in blocks])
    axis.set(xlim=(-0.5, len(blocks) - 0.5), ylim=(0.0, None))
    axis.set_title("each block, mean over steps", fontsize=9, color=INK)
    axis.set_xlabel(f"{parse(blocks[0]).stack} block", fontsize=9)
    axis.set_ylabel(UNIT, fontsize=9)
    _plain(axis)
    figure.legend(loc="outside lower center", ncols=len(caches), frameon=False, fontsize=9, handlelength=3.2)


def _plain(axis: Any) -> None:
    axis.grid(True, color="#E3E3E3", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
