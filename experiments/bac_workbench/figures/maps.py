"""Pictures of similarity: how it changes from step to step, and the maps of two episodes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bac.blocks import KIND_TITLES, KINDS, BlockId, execution_order, parse
from bac.drawing import KIND_COLOURS, add_title, new_figure
from bac.similarity import get_metric
from bac_workbench.figures.numbers import MapDistance, changes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = "denoising step (0 = noisiest)"


def by_kind(blocks: Sequence[str]) -> dict[str, list[BlockId]]:
    """Kind -> its blocks, both in execution order."""
    ids = [parse(name) for name in execution_order(blocks)]
    members = {kind: [block for block in ids if block.kind == kind] for kind in KINDS[ids[0].stack]}
    return {kind: found for kind, found in members.items() if found}


def draw_changes(matrices: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A row of panels per metric, one per kind of block, with a line per layer.

    Args:
        matrices: metric -> block -> [K, K].
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    kinds = by_kind(list(next(iter(matrices.values()))))
    layers = sorted({block.layer for blocks in kinds.values() for block in blocks})
    # Without the brightest part, which is hard to see as a line on white.
    colours = ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.88, len(layers))))
    figure = new_figure(3.0 * len(kinds) + 1.3, 2.1 * len(matrices) + 0.7)
    axes = figure.subplots(len(matrices), len(kinds), squeeze=False, sharex=True)
    for row, (metric, of_blocks) in enumerate(matrices.items()):
        info, curves = get_metric(metric), changes(of_blocks)
        for column, (kind, blocks) in enumerate(kinds.items()):
            axis = axes[row, column]
            for block in blocks:
                values = curves[block.name]
                axis.plot(
                    np.arange(1, len(values) + 1), values, color=colours(layers.index(block.layer)), linewidth=1.1
                )
            if info.maximise:
                axis.set_ylim(top=info.identical + 0.02 * (info.identical - axis.get_ylim()[0]))
            else:
                axis.set_ylim(bottom=0.0)
            axis.grid(True, color="#E3E3E3", linewidth=0.6)
            axis.set_axisbelow(True)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            if row == 0:
                axis.set_title(KIND_TITLES[kind], fontsize=10, color=KIND_COLOURS[kind], fontweight="bold")
        axes[row, 0].set_ylabel(info.title.replace("mean ", "mean\n"), fontsize=9)
    figure.align_ylabels(axes[:, 0])
    norm = BoundaryNorm(np.arange(len(layers) + 1) - 0.5, len(layers))
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(axes.flat), ticks=range(len(layers)), pad=0.01)
    bar.ax.set_yticklabels([str(layer) for layer in layers], fontsize=8)
    bar.ax.tick_params(length=0)
    bar.set_label("layer", fontsize=9)
    add_title(figure, "How alike the outputs of each block at steps k and k \u2212 1 are", 11)
    figure.supxlabel(STEP, fontsize=9)
    return figure


def draw_homogeneity(
    metric: str,
    one: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    names: tuple[str, str],
    distances: Mapping[str, MapDistance],
) -> Figure:
    """Two rows of panels per kind of block, a row per episode; the distance of two maps is written between them.

    Args:
        one, other: block -> [K, K], of the two episodes.
        names: what they are called.
    """
    info, kinds = get_metric(metric), by_kind(list(one))
    largest = {block: max(float(one[block].max()), float(other[block].max())) or 1.0 for block in one}
    shown: list[Mapping[str, np.ndarray]] = [one, other]
    if not info.maximise:  # layers differ too much in size to share a scale
        shown = [{block: matrix / largest[block] for block, matrix in matrices.items()} for matrices in shown]
    layers = sorted({block.layer for blocks in kinds.values() for block in blocks})
    figure = new_figure(max(4.6, 1.35 * len(layers) + 1.9), 3.05 * len(kinds) + 1.0)
    axes = figure.subplots(2 * len(kinds), len(layers), squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat:
        axis.set_axis_off()  # a layer may lack a kind; drawn panels are switched on again
    for place, (kind, blocks) in enumerate(kinds.items()):
        pair = axes[2 * place : 2 * place + 2]
        low = min(float(matrices[block.name].min()) for matrices in shown for block in blocks)
        for block in blocks:
            for axis, matrices in zip(pair[:, layers.index(block.layer)], shown):
                axis.set_axis_on()
                image = axis.imshow(
                    matrices[block.name],
                    vmin=low,
                    vmax=1.0,
                    cmap="viridis" if info.maximise else "viridis_r",
                    interpolation="nearest",
                )
                last = len(matrices[block.name]) - 1
                axis.set_xticks(sorted({0, (last + 1) // 2, last}))
                axis.set_yticks(sorted({0, (last + 1) // 2, last}))
                axis.tick_params(labelsize=7, length=2)
            upper, lower = pair[:, layers.index(block.layer)]
            beside = "" if info.maximise else f" ({largest[block.name]:.2g})"
            upper.set_title(f"{block.short}{beside}", fontsize=9, pad=3)
            found = distances[block.name]
            lower.set_title(f"\u0394 {found.difference:.2g}, r {found.correlation:.2f}", fontsize=8, pad=3)
        for axis, name in zip(pair[:, 0], names):
            axis.set_ylabel(name, fontsize=8)
        bar = figure.colorbar(image, ax=list(pair.flat), fraction=0.02, pad=0.01, aspect=30)
        bar.set_label(KIND_TITLES[kind], fontsize=9, color=KIND_COLOURS[kind], fontweight="bold")
        bar.ax.tick_params(labelsize=7, length=2)
        bar.outline.set_visible(False)
    scale = "" if info.maximise else ", as a share of the block's largest (beside its name)"
    add_title(
        figure,
        f"{info.title.capitalize()} of block outputs in two episodes: {names[0]} above {names[1]}{scale}\n"
        "\u0394: mean absolute difference of the two maps, r: their correlation",
        10,
    )
    figure.supxlabel(STEP, fontsize=9)
    figure.supylabel(STEP, fontsize=9)
    return figure
