"""The same figures as on the page, by matplotlib: for papers (PDF) and for the Markdown summary (PNG)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bac.block_errors import BlockErrors
from bac.drawing import INK, new_figure, save
from bac.figures import draw_similarity, plot_schedule
from bac_workbench.figures.errors import Drawn, draw_errors
from bac_workbench.reporting.evidence import Evidence, Grid, Surge
from bac_workbench.reporting.name_places import Named, write_names
from bac_workbench.reporting.names import FAMILIES
from bac_workbench.reporting.outcomes import Outcomes, ablation, bar_name, cost_of, cost_title, outcomes
from bac_workbench.reporting.studies import Method, Study
from bac_workbench.reporting.timings import PART_COLOURS, PARTS, Timed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
#: name of a picture and what writes it to paths of any format
Picture = tuple[str, Callable[..., None]]


def pictures_of(study: Study) -> Iterator[Picture]:
    """Those that the study has numbers for."""
    yield f"{study.key}_scores", writer(draw_scores, study)
    if len(ablation(study)) >= 2:
        yield f"{study.key}_ablation", writer(draw_ablation, study)
    if found := outcomes(study):
        yield f"{study.key}_outcomes", writer(draw_outcomes, study, found)
    for timed in study.timed:
        if timed.rows:
            yield f"{study.key}_breakdown_{timed.key}", writer(draw_breakdown, study, timed)


def pictures_behind(evidence: Evidence) -> Iterator[Picture]:
    """Likewise; the pictures of `bac profile` and `bac figures`."""
    for grid in evidence.grids:
        yield f"{evidence.key}_schedule_{grid.name}", schedule_writer(grid)
    if evidence.profile is not None:
        marked = None if evidence.marked is None else evidence.marked.schedule
        matrices = evidence.profile.matrices["cosine"]
        yield f"{evidence.key}_similarity_cosine", writer(draw_similarity, matrices, "cosine", marked)
    if evidence.surge is not None:
        yield f"{evidence.key}_error_surge", writer(draw_surge, evidence.surge)


def writer(draw: Callable[..., Figure], *arguments: Any) -> Callable[..., None]:
    return lambda *paths: save(draw(*arguments), *paths)


def schedule_writer(grid: Grid) -> Callable[..., None]:
    def write(*paths: Path) -> None:
        for path in paths:
            plot_schedule(grid.schedule, path, grid.base)

    return write


# ---- scores ----
def draw_scores(study: Study) -> Figure:
    """Mean score with its interval against what a chunk costs, on a logarithmic axis; no bars."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = new_figure(8, 4.2)
    axis = figure.subplots()
    labelled: set[str] = set()
    named = []
    for method in study.methods:
        x = cost_of(method, study)
        if x is None:
            continue
        look, tuned = FAMILIES[method.family], key_of(method) == study.tuned
        mean = method.row["mean_score"]
        axis.errorbar(
            x,
            mean,
            errors_of(method),
            fmt="*" if tuned else look.marker,
            color=look.colour,
            capsize=3,
            markersize=13 if tuned else 6.5,
            label=None if method.family in labelled else look.title,
        )
        name = method.name.replace(", budget ", " ").replace(", on ", " + ") + (", tuned" if tuned else "")
        name = name.replace("full policy (DDPM-100)", "full policy")
        named.append(Named(x, mean, *method.row["interval_95"], name, look.colour))
        labelled.add(method.family)
    axis.set_xscale("log")
    axis.set_xlabel(cost_title(study))
    axis.set_ylabel(f"{study.score_name}, 95 % interval")
    axis.set_ylim(-0.03, 1.12)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.set_xlim(axis.get_xlim()[0] / 1.2, axis.get_xlim()[1] * 1.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    machine = ", ".join(study.machine.split(", ")[:3])
    where = f", {machine}" if machine else ""
    axis.set_title(f"{study.title}: {study.methods[0].row['n_episodes']} episodes{where}", fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    write_names(axis, named)
    return figure


def key_of(method: Method) -> str:
    return f"{method.row['method']}@{method.row['sampler']}"


def errors_of(method: Method) -> list[list[float]]:
    """The 95 % interval of a mean score, below and above it."""
    mean, (low, high) = method.row["mean_score"], method.row["interval_95"]
    return [[max(mean - low, 0)], [max(high - mean, 0)]]


def draw_ablation(study: Study) -> Figure:
    """Bars from zero of the caches at their budgets, beside the full policy's score."""
    methods = ablation(study)
    figure = new_figure(max(5.0, 0.95 * len(methods) + 1.4), 3.6)
    axis = figure.subplots()
    for place, method in enumerate(methods):
        axis.bar(place, method.row["mean_score"], 0.72, color=FAMILIES[method.family].colour)
        axis.errorbar(place, method.row["mean_score"], errors_of(method), color=INK, capsize=4, linewidth=1.2)
    if study.full is not None:
        score = study.full.row["mean_score"]
        axis.axhline(score, color="black", linestyle="--", linewidth=0.9)
        axis.annotate(f"full policy {score:.3f}", (-0.45, score), (0, 3), textcoords="offset points", fontsize=8)
    axis.set_xticks(range(len(methods)), [bar_name(method).replace(", ", "\n") for method in methods], fontsize=8)
    axis.set(ylim=(0, 1.12), ylabel=f"{study.score_name}, 95 % interval")
    axis.set_title(f"{study.title}: caches at their budgets", fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    axis.set_axisbelow(True)
    return figure


# ---- pairs and times ----
def draw_outcomes(study: Study, found: list[Outcomes]) -> Figure:
    """A matrix of two by two per method: what became of the pairs of episodes."""
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(2.3 * columns + 0.6, 2.35 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, item in zip(axes.flat, found):
        axis.imshow(item.matrix, vmin=0, vmax=item.total, cmap="Blues")
        for row, counts in enumerate(item.matrix):
            for column, count in enumerate(counts):
                dark = count > 0.55 * item.total
                axis.text(column, row, str(count), ha="center", va="center", color="white" if dark else INK)
        axis.set_xticks([0, 1], ["succeeds", "fails"], fontsize=7)
        axis.set_yticks([0, 1], ["full succeeds", "full fails"], fontsize=7, rotation=90, va="center")
        axis.tick_params(length=0)
        axis.set_title(f"{item.method.name}\np = {item.p_value:.3g}", fontsize=8)
    figure.suptitle(f"{study.title}: outcomes of pairs of episodes", fontsize=10)
    return figure


def draw_breakdown(study: Study, timed: Timed) -> Figure:
    """Where the time of a chunk goes, stacked from zero."""
    figure = new_figure(8, 0.34 * len(timed.rows) + 1.5)
    axis = figure.subplots()
    left = [0.0] * len(timed.rows)
    for part, title in PARTS.items():
        widths = [row["breakdown_ms"][part] for row in timed.rows]
        axis.barh(range(len(widths)), widths, 0.72, left=left, color=PART_COLOURS[part], label=title)
        left = [a + b for a, b in zip(left, widths)]
    axis.set_yticks(range(len(left)), [timed.name(row) for row in timed.rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("ms per action chunk")
    machine = ", ".join(timed.run.machine.split(", ")[:2])
    axis.set_title(f"{study.title}, batch {timed.batch}, {timed.runtime}, {machine}", fontsize=9, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


# ---- error surge ----
def draw_surge(surge: Surge) -> Figure:
    """The picture of `bac figures`, from its stored numbers."""
    drawn = {
        method: Drawn(
            label=cache.label,
            updates=cache.facts["block_updates"],
            all_updates=cache.facts["block_updates_full"],
            flops=cache.facts["gflop"] * 1e9,
            action_error=cache.facts["action_error"],
        )
        for method, cache in zip(surge.errors, surge.caches)
    }
    errors = {method: cache.facts["action_error"] for method, cache in zip(surge.errors, surge.caches)}
    return draw_errors(BlockErrors(surge.blocks, surge.sizes, surge.errors, errors), drawn)
