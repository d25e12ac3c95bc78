"""A dashboard as a report in Weights & Biases, whose panels draw the runs that evaluations logged there."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from bac_workbench.dashboard.panels import PANELS, Panel, Study, run_set
from bac_workbench.evaluation.comparison_tables import lines_of, machine_notes, markdown
from bac_workbench.tracking.evaluations import EPISODES, SCHEDULE, SIMILARITY, VIDEOS
from bac_workbench.tracking.run import brief
from diffusion_policy.common.config import ConfigError

TIMEOUT = 15  # seconds that the server may take to answer at first
WIDTH, HEIGHT = 12, 8  # of a panel; a report is 24 wide


def reports() -> ModuleType:
    """The library that makes reports.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as library
    except ImportError as error:
        raise ConfigError(
            "a report in Weights & Biases needs wandb-workspaces: pip install 'bac-workbench[wandb]', "
            "or where=local for a page on this machine"
        ) from error
    return library


def save_report(title: str, project: str, entity: str | None, studies: Sequence[Study]) -> str:
    """Creates the report and returns its address.

    Args:
        entity: user or team; None: the login's own.

    Raises:
        ConfigError: the server does not answer, or refuses.
    """
    import wandb

    library = reports()
    try:
        owner = entity or wandb.Api(timeout=TIMEOUT).default_entity
        report = make_report(library, title, project, owner, studies)
        report.save()
        return report.url
    except (wandb.errors.Error, OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"Weights & Biases did not take the report ({brief(error)}): where=local writes it as a page here"
        ) from error


def make_report(library: ModuleType, title: str, project: str, entity: str, studies: Sequence[Study]) -> Any:
    """The report, not yet sent: for each task a table of what is stored here, and a grid of panels over its runs."""
    blocks = [library.TableOfContents()]
    for study in studies:
        comparison = study.comparison
        notes = [f"paired with {', '.join(comparison.references)}", *machine_notes(comparison.rows)]
        table = markdown(lines_of(comparison.rows, comparison.margin))
        blocks += [
            library.H1(text=study.title),
            library.MarkdownBlock(text="\n".join([table, *(f"- {note}" for note in notes)])),
            library.PanelGrid(runsets=run_sets(library, study), panels=panels(library)),
        ]
    return library.Report(project=project, entity=entity, title=title[:128], blocks=blocks, width="fluid")


def run_sets(library: ModuleType, study: Study) -> list[Any]:
    """One for each caching method: the evaluations of the task in the report's own project."""
    return [
        library.Runset(
            name=run_set(family)[0],
            filters=f"JobType = 'eval' and Config('task_name') = {study.task!r} and Config('method') = {family!r}",
            groupby=["config.setting"],
        )
        for family in study.families
    ]


def panels(library: ModuleType) -> list[Any]:
    """Those of `PANELS`, then what evaluations drew and filmed."""
    drawn = [
        plot(library, panel, library.Layout(x=WIDTH * (place % 2), y=HEIGHT * (place // 2), w=WIDTH, h=HEIGHT))
        for place, panel in enumerate(PANELS)
    ]
    below = HEIGHT * ((len(PANELS) + 1) // 2)
    media = library.MediaBrowser(
        title="Schedules, similarity maps and videos",
        media_keys=[SCHEDULE, SIMILARITY, VIDEOS, EPISODES],
        layout=library.Layout(x=0, y=below, w=2 * WIDTH, h=2 * HEIGHT),
    )
    return [*drawn, media]


def plot(library: ModuleType, panel: Panel, layout: Any) -> Any:
    y = library.SummaryMetric(panel.y.key)
    if panel.x is not None:
        x = library.SummaryMetric(panel.x.key)
        return library.ScatterPlot(title=panel.title, x=x, y=y, log_x=panel.log_x, layout=layout)
    return library.BarPlot(
        title=panel.title,
        metrics=[panel.y.key],
        title_x=panel.y.title,
        groupby=library.Config("setting"),
        groupby_aggfunc="mean",
        groupby_rangefunc="stderr",
        layout=layout,
    )
