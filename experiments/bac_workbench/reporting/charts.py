"""The figures of a page, by plotly: every trace carries the tags that the page's filters look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bac.blocks import KIND_TITLES, KINDS, parse
from bac.drawing import KIND_COLOURS, PAPER, REPAIR_COLOUR
from bac_workbench.figures.maps import STEP, by_kind
from bac_workbench.reporting.evidence import Evidence, Grid, Surge
from bac_workbench.reporting.names import FAMILIES, budget, family
from bac_workbench.reporting.outcomes import ablation, bar_name, cost_of, cost_title
from bac_workbench.reporting.studies import Method, Study
from bac_workbench.reporting.timings import PART_COLOURS, PARTS, Timed

GRID_LINES = "#E3E3E3"
TICKS = [float(f"{digit}e{power}") for power in range(-3, 6) for digit in (1, 2, 5)]  # of logarithmic axes
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Attributes:
        key: its id.
        height: pixels.
    """

    key: str
    figure: go.Figure
    height: int

    @property
    def json(self) -> str:
        """Of plotly's form; arrays are base64 of their own numbers."""
        return str(self.figure.to_json(validate=False))


def finished(key: str, figure: go.Figure, height: int, **layout: Any) -> Chart:
    """Gives a figure the look of the page."""
    figure.update_xaxes(title_standoff=8)
    figure.update_layout(
        template=go.layout.Template(),
        font=FONT,
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        **layout,
    )
    return Chart(key, figure, height)


def interval(method: Method) -> dict[str, Any]:
    """The 95 % interval of a mean score, as plotly's error bars."""
    mean, (low, high) = method.row["mean_score"], method.row["interval_95"]
    return {"type": "data", "array": [max(high - mean, 0)], "arrayminus": [max(mean - low, 0)], "thickness": 1.5}


# ---- scores ----
def scores(study: Study) -> Chart:
    """Mean score with its interval against what a chunk costs, on a logarithmic axis; no bars."""
    figure = go.Figure()
    for method in study.methods:
        cost = cost_of(method, study)
        if cost is None:
            continue
        look = FAMILIES[method.family]
        key = f"{method.row['method']}@{method.row['sampler']}"
        name = f"{method.name} (tuned)" if key == study.tuned else method.name
        figure.add_scatter(
            x=[cost],
            y=[method.row["mean_score"]],
            error_y=interval(method),
            mode="markers",
            name=name,
            marker={"color": look.colour, "symbol": look.symbol, "size": 15 if key == study.tuned else 10},
            meta=method.tags,
            hovertemplate=f"%{{x:.4g}}, %{{y:.3f}}<extra>{escaped(name)}</extra>",
        )
    figure.update_xaxes(
        type="log",
        title=cost_title(study),
        gridcolor=GRID_LINES,
        tickvals=TICKS,
        ticktext=[f"{tick:g}" for tick in TICKS],
    )
    figure.update_yaxes(title=f"{study.score_name}, 95 % interval", range=[-0.02, 1.08], gridcolor=GRID_LINES)
    return finished(f"{study.key}_scores", figure, 440, legend={"itemsizing": "constant"})


def escaped(text: str) -> str:
    """For plotly's hover texts, which read a little HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def ablation_bars(study: Study) -> Chart | None:
    """Bars from zero of the caches at their budgets, beside the full policy's score; None where there are no two."""
    methods = ablation(study)
    if len(methods) < 2:
        return None
    figure = go.Figure()
    for method in methods:
        figure.add_bar(
            x=[bar_name(method)],
            y=[method.row["mean_score"]],
            width=0.6,
            error_y=interval(method),
            name=bar_name(method),
            marker={"color": FAMILIES[method.family].colour},
            meta=method.tags,
            showlegend=False,
            hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        )
    if study.full is not None:
        score = study.full.row["mean_score"]
        figure.add_hline(
            score, line={"color": "#000000", "dash": "dash", "width": 1}, annotation_text=f"full policy {score:.3f}"
        )
    figure.update_yaxes(title=f"{study.score_name}, 95 % interval", range=[0, 1.08], gridcolor=GRID_LINES)
    figure.update_xaxes(title="cache, budget", type="category")
    return finished(f"{study.key}_ablation", figure, 380, barmode="overlay")


# ---- times ----
def breakdown(study: Study, timed: Timed) -> Chart | None:
    """Where the time of a chunk goes, stacked from zero; None without a breakdown."""
    if not timed.rows:
        return None
    figure = go.Figure()
    for part, title in PARTS.items():
        for place, row in enumerate(timed.rows):
            method, sampler = row["method"], row["sampler"]
            figure.add_bar(
                y=[timed.name(row)],
                x=[row["breakdown_ms"][part]],
                orientation="h",
                name=title,
                legendgroup=part,
                showlegend=place == 0,
                marker={"color": PART_COLOURS[part]},
                meta={"method": family(method, sampler, study.own_sampler), "budget": budget(method)},
                hovertemplate=f"%{{y}}: {title} %{{x:.3g}} ms<extra></extra>",
            )
    figure.update_xaxes(title="ms per action chunk", rangemode="tozero", gridcolor=GRID_LINES)
    figure.update_yaxes(type="category", autorange="reversed", automargin=True)
    height = 150 + 28 * len(timed.rows)
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return finished(f"{study.key}_breakdown_{timed.key}", figure, height, barmode="stack", legend=legend)


# ---- schedules ----
def schedule_grid(evidence: Evidence, grid: Grid) -> Chart:
    """Which block updates at which step; what BUA added in a colour of its own."""
    ids = [parse(name) for name in grid.schedule.blocks]
    kinds = [kind for kind in KINDS[ids[0].stack] if kind in {block.kind for block in ids}]
    cells = np.array([kinds.index(block.kind) + 1 for block in ids]) * grid.schedule.updates
    cells[grid.added] = len(kinds) + 1
    words = np.array(["reuse", *(f"{KIND_TITLES[kind]} update" for kind in kinds), "update added by BUA"])
    figure = go.Figure(
        go.Heatmap(
            z=cells.T.astype(np.int8),
            y=[block.short for block in ids],
            colorscale=steps_of_colour([PAPER, *(KIND_COLOURS[kind] for kind in kinds), REPAIR_COLOUR]),
            zmin=-0.5,
            zmax=len(kinds) + 1.5,
            xgap=1,
            ygap=1,
            showscale=False,
            showlegend=False,
            hovertemplate="%{y}, step %{x}<extra></extra>",
            meta=grid.tags,
        )
    )
    for colour, word in zip([*(KIND_COLOURS[kind] for kind in kinds), REPAIR_COLOUR], words[1:]):
        if word != words[-1] or grid.added.any():
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=word, marker={"color": colour, "symbol": "square", "size": 11}
            )
    figure.update_xaxes(title=STEP)
    figure.update_yaxes(autorange="reversed", type="category", tickfont={"size": 10}, title=f"{ids[0].stack} block")
    legend = {"orientation": "h", "y": 1.01, "yanchor": "bottom"}
    return finished(f"{evidence.key}_schedule_{grid.name}", figure, 130 + 17 * len(ids), legend=legend)


def steps_of_colour(colours: Sequence[str]) -> list[list[Any]]:
    """A colour scale with a sharp edge between any two colours."""
    n = len(colours)
    return [[edge / n, colour] for place, colour in enumerate(colours) for edge in (place, place + 1)]


def similarity_maps(evidence: Evidence) -> Chart | None:
    """A map of every block with the steps at which it updates; None without a profile."""
    profile = evidence.profile
    if profile is None:
        return None
    kinds = by_kind(list(profile.matrices["cosine"]))
    layers = sorted({block.layer for members in kinds.values() for block in members})
    names = {(kind, block.layer): block for kind, members in kinds.items() for block in members}
    titles = [names[kind, layer].short if (kind, layer) in names else "" for kind in kinds for layer in layers]
    figure = make_subplots(
        len(kinds), len(layers), subplot_titles=titles, horizontal_spacing=0.012, vertical_spacing=0.07
    )
    for place, (kind, layer) in enumerate((kind, layer) for kind in kinds for layer in layers):
        if (kind, layer) not in names:
            continue
        row, column = divmod(place, len(layers))
        block = names[kind, layer].name
        matrix = profile.matrices["cosine"][block].astype(np.float32)
        figure.add_heatmap(z=matrix, coloraxis=f"coloraxis{row + 1}", row=row + 1, col=column + 1, showlegend=False)
        for trace in chosen_steps(evidence.marked, block):
            figure.add_trace(trace, row=row + 1, col=column + 1)
    figure.update_annotations(font_size=11)
    figure.update_xaxes(showticklabels=False, ticks="", constrain="domain", zeroline=False)
    figure.update_yaxes(showticklabels=False, ticks="", autorange="reversed", zeroline=False)
    height = 560
    bars = {}
    for row, kind in enumerate(kinds):
        top = 1 - (row + 0.5) / len(kinds)
        bar = {"len": 0.9 / len(kinds), "y": top, "thickness": 10, "title": {"text": kind.upper()}}
        bars[f"coloraxis{row + 1}"] = {"colorscale": "Viridis", "colorbar": bar}
    legend = {"orientation": "h", "y": -0.03, "yanchor": "top"}
    return finished(f"{evidence.key}_similarity_cosine", figure, height, legend=legend, **bars)


def chosen_steps(grid: Grid | None, block: str) -> Iterator[go.Scatter]:
    """The update steps of a block as marks on the diagonal; what BUA added apart."""
    if grid is None:
        return
    column = grid.schedule.blocks.index(block)
    added = grid.added[:, column]
    kept = grid.schedule.updates[:, column] & ~added
    for steps, title, colour in (
        (kept, f"update step of {grid.name}", "#FFFFFF"),
        (added, "added by BUA", REPAIR_COLOUR),
    ):
        if steps.any():
            at = np.flatnonzero(steps).astype(np.int16)
            mark = {"color": colour, "size": 4, "symbol": "square", "line": {"color": "#333333", "width": 0.7}}
            yield go.Scatter(x=at, y=at, mode="markers", marker=mark, name=title, legendgroup=title)


# ---- error surge ----
def error_surge(evidence: Evidence, surge: Surge) -> Chart:
    """Errors of block outputs by step: a panel per kind of block, a line per cache."""
    kinds = by_kind(surge.blocks)
    titles = [f"{KIND_TITLES[kind]}, mean over layers" for kind in kinds]
    figure = make_subplots(1, len(kinds), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    for column, members in enumerate(kinds.values()):
        places = [surge.blocks.index(block.name) for block in members]
        for cache in surge.caches:
            figure.add_scatter(
                y=cache.relative[:, places].mean(axis=1).astype(np.float32),
                mode="lines",
                name=cache.label,
                legendgroup=cache.label,
                showlegend=column == 0,
                line={"color": FAMILIES[cache.family].colour, "width": 1.8},
                meta=cache.tags,
                row=1,
                col=column + 1,
            )
    figure.update_xaxes(title=STEP, gridcolor=GRID_LINES)
    figure.update_yaxes(rangemode="tozero", gridcolor=GRID_LINES)
    figure.update_yaxes(title="error / mean |output|", col=1)
    legend = {"orientation": "h", "y": -0.25, "yanchor": "top"}
    return finished(f"{evidence.key}_error_surge", figure, 380, legend=legend)
