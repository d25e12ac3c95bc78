"""What is said of a study, and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bac.blocks import KIND_TITLES, parse
from bac.drawing import KIND_COLOURS, new_figure, save
from bac_workbench.stability.numbers import PAIR_TITLES


def groups(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The schedules by how many chains they are made from, in words; the fewest first."""
    by_size: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(found["schedules"], key=lambda row: row["observations"] * row["noise_seeds"]):
        chains = row["observations"] * row["noise_seeds"]
        by_size.setdefault(f"{chains} chain{'s' if chains > 1 else ''}", []).append(row)
    return by_size


def summary(found: dict[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    for kind, row in found["correlations"].items():
        if row["pairs"]:
            yield (
                f"maps, {PAIR_TITLES[kind]}: correlation {row['median']:.3f}, 95 % above {row['low_5']:.3f} "
                f"({row['pairs']} pairs; least alike: {row['worst_block']})"
            )
    for name, rows in groups(found).items():
        error = np.array([row["action_error"] for row in rows])
        yield (
            f"BAC from {name}: error of actions {_spread(error)}; update steps "
            f"{np.mean([row['displacement'] for row in rows]):.2f} steps from those of all, objective lost "
            f"{100 * np.mean([row['regret'] for row in rows]):.1f} %, repaired blocks alike "
            f"{np.mean([row['repaired'] for row in rows]):.1f} of {found['top_k']}"
        )
        if "scores" in found:
            means = np.array([found["scores"]["by_schedule"][row["name"]]["mean"] for row in rows])
            yield f"BAC from {name}: mean score {_spread(means)} over {found['scores']['episodes']} episodes each"


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{values.mean():.4f} (from {values.min():.4f} to {values.max():.4f} over {len(values)} draws)"


def draw(folder: Path, found: dict[str, Any], correlated: dict[str, np.ndarray], blocks: Sequence[str]) -> None:
    """Three panels, or four with scores: maps, update steps, errors of actions, scores."""
    with_scores = "scores" in found
    figure = new_figure(4.0 * (4 if with_scores else 3), 3.6)
    axes = figure.subplots(1, 4 if with_scores else 3)
    _draw_maps(axes[0], correlated, blocks)
    panels = [("displacement", "distance of update steps\nto those of all chains [steps]")]
    panels += [("action_error", "error of the executed actions\n(normalised units)")]
    for axis, (name, title) in zip(axes[1:], panels):
        _dots(axis, {size: [row[name] for row in rows] for size, rows in groups(found).items()}, title)
    if with_scores:
        by_schedule = found["scores"]["by_schedule"]
        values = {size: [by_schedule[row["name"]]["mean"] for row in rows] for size, rows in groups(found).items()}
        _dots(axes[3], values, f"mean score, {found['scores']['episodes']} episodes")
    save(figure, folder / "stability.png", folder / "stability.pdf")


def _draw_maps(axis: Any, correlated: dict[str, np.ndarray], blocks: Sequence[str]) -> None:
    kinds = [parse(block).kind for block in blocks]
    names = [kind for kind, values in correlated.items() if values.size]
    for offset, kind in enumerate(dict.fromkeys(kinds)):
        columns = [index for index, own in enumerate(kinds) if own == kind]
        for place, name in enumerate(names):
            values = correlated[name][:, columns].ravel()
            low, middle, high = np.nanpercentile(values, [5, 50, 95])
            y = place + 0.22 * (offset - 1)
            axis.plot([low, high], [y, y], color=KIND_COLOURS[kind], linewidth=2)
            label = KIND_TITLES[kind] if place == 0 else None
            axis.plot([middle], [y], "o", color=KIND_COLOURS[kind], markersize=5, label=label)
    axis.set_yticks(range(len(names)), [PAIR_TITLES[name].replace(", ", ",\n") for name in names], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("correlation of two chains' similarity maps\n(median, 5 to 95 % of pairs)", fontsize=8)
    axis.legend(fontsize=7, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=1)
    _plain(axis)


def _dots(axis: Any, values: dict[str, list[float]], title: str) -> None:
    for place, own in enumerate(values.values()):
        spread = np.linspace(-0.15, 0.15, len(own)) if len(own) > 1 else [0.0]
        axis.plot(place + np.asarray(spread), own, "o", color="#0072B2", alpha=0.75, markersize=5)
        axis.plot([place - 0.25, place + 0.25], [np.mean(own)] * 2, color="#333333", linewidth=1)
    axis.set_xticks(range(len(values)), [f"from\n{name}" for name in values], fontsize=8)
    axis.set_ylabel(title, fontsize=8)
    axis.set_xlim(-0.6, len(values) - 0.4)
    axis.set_ylim(0, 1.08 * max(max(own) for own in values.values()) or 1)
    _plain(axis)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(True, color="#E3E3E3", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
