"""Pictures of schedules, similarity matrices, holding costs and error scores.

The file name's ending chooses the format: ``.png`` (200 dpi), ``.pdf`` or ``.svg``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bac.blocks import KIND_TITLES, KINDS, execution_order, parse
from bac.drawing import INK, KIND_COLOURS, PAPER, REPAIR_COLOUR, block_maps, hide_spines, new_figure, save, shares
from bac.schedule import Schedule, ScheduleError
from bac.schedule_text import summary
from bac.similarity import get_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bac.holding import HoldingCosts


def plot_schedule(schedule: Schedule, path: str | Path, base: Schedule | None = None) -> None:
    """Draw which block updates at which denoising step, with the totals per step and per block.

    Args:
        schedule: the schedule to draw.
        path: picture to write.
        base: the schedule before a repair; updates that it does not have are drawn in another colour.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    if base is not None and (base.blocks, base.steps) != (schedule.blocks, schedule.steps):
        raise ScheduleError(f"base must have the blocks and steps of the schedule: {base!r} against {schedule!r}")
    ids = [parse(name) for name in schedule.blocks]
    kinds = [kind for kind in KINDS[ids[0].stack] if kind in {block.kind for block in ids}]
    cells = np.array([kinds.index(block.kind) + 1 for block in ids]) * schedule.updates  # [steps, blocks]
    added = schedule.updates & ~base.updates if base is not None else np.zeros_like(schedule.updates)
    cells[added] = len(kinds) + 1
    n_steps, n_blocks = schedule.updates.shape

    figure = new_figure(11.0, 0.19 * n_blocks + 2.1)
    top, grid = figure.subplots(2, 1, sharex=True, height_ratios=[0.6, 0.19 * n_blocks])
    top.bar(np.arange(n_steps), schedule.updates.sum(axis=1), width=1.0, color="#8A8A8A")
    top.set(ylabel="blocks", ylim=(0, n_blocks), yticks=[0, n_blocks])
    top.spines[["top", "right"]].set_visible(False)
    top.tick_params(axis="x", length=0)
    top.set_title(f"{schedule.origin}\n{summary(schedule)}", loc="left", fontsize=10)

    colours = [PAPER, *(KIND_COLOURS[kind] for kind in kinds), REPAIR_COLOUR]
    gap = 0.6 if n_steps <= 120 else 0.0  # white lines between cells, as long as cells are wider than the lines
    grid.pcolormesh(
        np.arange(n_steps + 1) - 0.5,
        np.arange(n_blocks + 1) - 0.5,
        cells.T,
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(colours) - 0.5,
        edgecolors="white" if gap else "none",
        linewidth=gap,
        rasterized=n_steps > 200,
    )
    for row in range(1, n_blocks):
        if ids[row].layer != ids[row - 1].layer:
            grid.axhline(row - 0.5, color=INK, linewidth=0.6)
    grid.set_yticks(range(n_blocks), [block.short for block in ids], fontsize=8)
    for name, label in zip(schedule.blocks, grid.get_yticklabels()):
        if name in schedule.provenance.repaired:
            label.set(fontweight="bold", color=REPAIR_COLOUR)
    grid.set(xlim=(-0.5, n_steps - 0.5), ylim=(n_blocks - 0.5, -0.5))
    grid.xaxis.set_major_locator(MaxNLocator(nbins=11, integer=True))
    grid.set(xlabel="denoising step k (0 = noisiest)", ylabel=f"{ids[0].stack} block")
    grid.tick_params(length=0)
    totals = grid.secondary_yaxis("right")
    totals.set_yticks(range(n_blocks), [str(n) for n in schedule.updates_per_block.values()], fontsize=8)
    totals.tick_params(length=0)
    totals.set_ylabel("updates")
    hide_spines(grid, totals)

    handles = [Patch(color=KIND_COLOURS[kind], label=f"{KIND_TITLES[kind]} updates") for kind in kinds]
    if added.any():
        handles.append(Patch(color=REPAIR_COLOUR, label="update added by the repair"))
    handles.append(Patch(color=PAPER, label="reuse"))
    handles[-1].set_edgecolor("#BBBBBB")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    save(figure, path)


def plot_similarity(
    matrices: Mapping[str, np.ndarray], path: str | Path, metric: str, schedule: Schedule | None = None
) -> None:
    """Write the picture of `draw_similarity`."""
    save(draw_similarity(matrices, metric, schedule), path)


def draw_similarity(
    matrices: Mapping[str, np.ndarray], metric: str, schedule: Schedule | None = None, own_scale: bool = False
) -> Figure:
    """Draw one heat map per block: a row of panels per kind, a column per layer.

    Panels of one kind share a colour scale, so layers can be compared; kinds differ too much to share one. Bright is
    always alike, for similarities and for distances.

    Args:
        matrices: block name -> [K, K].
        metric: what the matrices hold (see `bac.similarity`).
        schedule: if given, its held intervals are outlined along the diagonal.
        own_scale: draw the distances of each block as shares of its largest one, which its title gives: where one
            layer's are far larger than the others', these show nothing else.
    """
    info = get_metric(metric)
    if schedule is not None:
        schedule.check_fits(execution_order(matrices), len(next(iter(matrices.values()))))

    title = f"{info.title.capitalize()} of block outputs"
    shown, titles = matrices, None
    if own_scale and not info.maximise:
        shown, titles = shares(matrices), {name: f"{float(np.max(values)):.2g}" for name, values in matrices.items()}
        title += ", as a share of each block's largest (beside its name)"
    if schedule is not None:
        title += f"\noutlined: held intervals ({schedule.origin})"

    def draw(axis: Any, block: str, low: float, high: float) -> Any:
        colours = "viridis" if info.maximise else "viridis_r"
        image = axis.imshow(shown[block], vmin=low, vmax=high, cmap=colours, interpolation="nearest")
        if schedule is not None:
            _outline_intervals(axis, schedule.steps_of(block), schedule.steps)
        return image

    step = "denoising step (0 = noisiest)"
    return block_maps(shown, draw, title, step, step, titles)


def plot_costs(costs: HoldingCosts, path: str | Path) -> None:
    """Draw one map per block of what holding its output costs, on one logarithmic scale: dark is dear.

    Args:
        costs: see `bac.sensitivity.holding_costs`.
        path: picture to write.
    """
    from matplotlib.colors import LogNorm

    matrices = dict(zip(costs.blocks, costs.hold))
    positive = costs.hold[costs.hold > 0]
    high = float(positive.max(initial=1e-12))
    norm = LogNorm(max(float(np.quantile(positive, 0.02)) if positive.size else high / 10, high * 1e-9), high)

    def draw(axis: Any, block: str, low: float, high: float) -> Any:
        shown = np.ma.masked_less_equal(matrices[block], 0)  # nothing is held up to a step before its own
        return axis.imshow(shown, norm=norm, cmap="magma_r", interpolation="nearest")

    figure = block_maps(
        matrices, draw, "Cost of holding a block's output, to the executed actions", "held up to step", "output of step"
    )
    save(figure, path)


def plot_errors(scores: Mapping[str, float], path: str | Path, selected: Sequence[str] = ()) -> None:
    """Draw the error score of every block as bars in execution order.

    Args:
        scores: block name -> error (see `bac.bua.error_scores`).
        path: picture to write.
        selected: blocks chosen for repair; marked with their rank in the given order.
    """
    from matplotlib.patches import Patch

    names = execution_order(scores)
    unknown = [name for name in selected if name not in scores]
    if unknown:
        raise ValueError(f"selected block {unknown[0]!r} has no error score")
    ids = [parse(name) for name in names]
    kinds = [kind for kind in KINDS[ids[0].stack] if kind in {block.kind for block in ids}]
    values = [scores[name] for name in names]

    figure = new_figure(max(6.0, 0.36 * len(names) + 1.2), 3.2)
    axis = figure.subplots()
    bars = axis.bar(range(len(names)), values, width=0.78, color=[KIND_COLOURS[block.kind] for block in ids])
    for name, bar in zip(names, bars):
        if name in selected:
            bar.set(edgecolor=REPAIR_COLOUR, linewidth=2.0)
            axis.annotate(
                f"#{list(selected).index(name) + 1}",
                (bar.get_x() + bar.get_width() / 2, bar.get_height()),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                fontweight="bold",
                color=REPAIR_COLOUR,
            )
    axis.set_xticks(range(len(names)), [block.short for block in ids], rotation=60, fontsize=8)
    axis.tick_params(axis="x", length=0)
    axis.set(xlim=(-0.6, len(names) - 0.4), xlabel=f"{ids[0].stack} block", ylabel="mean absolute difference")
    axis.margins(y=0.14)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.grid(True, color="#E3E3E3", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title("Caching error of each block, over all pairs of steps", loc="left", fontsize=10)
    handles = [Patch(color=KIND_COLOURS[kind], label=KIND_TITLES[kind]) for kind in kinds]
    if selected:
        handles.append(Patch(facecolor="white", edgecolor=REPAIR_COLOUR, linewidth=2.0, label="chosen for repair"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    save(figure, path)


def _outline_intervals(axis, steps: Sequence[int], n_steps: int) -> None:
    """Draw a square from a to b around the diagonal, which is always bright, for each held interval [a, b]."""
    from matplotlib.patches import Rectangle

    for start, end in zip(steps, [*steps[1:], n_steps]):
        size = end - start
        axis.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=INK, linewidth=0.6))
