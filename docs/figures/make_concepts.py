"""Draws docs/figures/concepts.png from the bundled Push-T schedules: python -m docs.figures.make_concepts"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from bac.blocks import KIND_TITLES, parse
from bac.schedule import Schedule

FIGURES = Path(__file__).parent
SCHEDULES = FIGURES.parents[1] / "assets" / "pusht_lowdim" / "schedules"
REUSE, UPDATE, REPAIR, EXECUTED, PALE = "#e6e6e6", "#4c8bbe", "#d9722e", "#6aa84f", "#f5f5f5"
HORIZON, N_OBS_STEPS, N_ACTION_STEPS = 16, 2, 8  # of Push-T


def draw_chunk(axis: Axes) -> None:
    """The way from observations to an action chunk: denoising steps, then the trajectory and its executed part."""
    axis.set_xlim(0, 100)
    axis.set_ylim(4, 24)
    axis.axis("off")
    box(axis, 1, "observations\n(last 2 steps)")
    box(axis, 19, "noise\n(16 actions)")
    for index, text in enumerate(("denoising\nstep 0", "denoising\nstep 1", "...", "denoising\nstep 99")):
        box(axis, 37 + 9.5 * index, text, width=8.5, colour=PALE if text == "..." else "#dbe9f4")
    arrow(axis, 33.5, 36.6)
    curve = {"connectionstyle": "arc3,rad=-0.18", "arrowstyle": "->", "mutation_scale": 10}
    axis.add_patch(FancyArrowPatch((8, 15.6), (40, 15.6), **curve))
    axis.text(24, 20.6, "every step sees the observations", ha="center", fontsize=8)
    arrow(axis, 74.6, 77.5)
    width = 1.3
    for index in range(HORIZON):
        executed = N_OBS_STEPS - 1 <= index < N_OBS_STEPS - 1 + N_ACTION_STEPS
        colour = EXECUTED if executed else REUSE
        axis.add_patch(Rectangle((78 + index * width, 9), width * 0.86, 5, color=colour, linewidth=0))
    axis.text(78 + 8 * width, 15, "predicted trajectory: horizon 16", ha="center", fontsize=8)
    axis.text(78 + 5 * width, 6.4, "action chunk: the 8 executed", ha="center", fontsize=8, color=EXECUTED)


def box(axis: Axes, x: float, text: str, width: float = 14.5, colour: str = PALE) -> None:
    axis.add_patch(FancyBboxPatch((x, 8), width, 7, boxstyle="round,pad=0.2", facecolor=colour, edgecolor="#999999"))
    axis.text(x + width / 2, 11.5, text, ha="center", va="center", fontsize=8)


def arrow(axis: Axes, start: float, end: float) -> None:
    axis.add_patch(FancyArrowPatch((start, 11.5), (end, 11.5), arrowstyle="->", mutation_scale=10))


def draw_schedule(axis: Axes) -> None:
    """Which block computes at which denoising step: chosen by ACS, added by BUA, reused in between."""
    acs, bac = (Schedule.load(SCHEDULES / name) for name in ("blockwise_acs_s10.json", "bac_s10.json"))
    kinds = np.where(acs.updates, 1, np.where(bac.updates, 2, 0)).T  # [blocks, steps]
    colours = ListedColormap([REUSE, UPDATE, REPAIR])
    axis.pcolormesh(kinds, cmap=colours, vmin=0, vmax=2, edgecolors="white", linewidth=0.4)
    axis.invert_yaxis()
    axis.set_yticks(np.arange(len(bac.blocks)) + 0.5, [short_name(block) for block in bac.blocks], fontsize=7)
    axis.set_xlabel("denoising step", fontsize=9)
    axis.set_ylabel("block (layer and kind)", fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    legend = [
        Patch(color=UPDATE, label="update: chosen by ACS (10 per block, the budget)"),
        Patch(color=REPAIR, label="update: added by BUA"),
        Patch(color=REUSE, label="reuse of the block's last output"),
    ]
    axis.legend(handles=legend, loc="upper center", bbox_to_anchor=(0.5, 1.09), ncols=3, frameon=False, fontsize=8.5)


def short_name(block: str) -> str:
    """'decoder.layers.3.ca' -> '3 cross-attention'."""
    parsed = parse(block)
    return f"{parsed.layer} {KIND_TITLES[parsed.kind]}"


def main(path: Path = FIGURES / "concepts.png") -> Path:
    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 3.4))
    draw_chunk(above)
    draw_schedule(below)
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
    return path


if __name__ == "__main__":
    main()
