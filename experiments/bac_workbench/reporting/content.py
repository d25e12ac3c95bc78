"""The content of a report, which the page and the Markdown summary both show: per task its studies and evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bac_workbench.evaluation.comparison_tables import Lines, overview_lines
from bac_workbench.reporting import tables
from bac_workbench.reporting.evidence import Evidence, Surge
from bac_workbench.reporting.names import FAMILIES, TITLES
from bac_workbench.reporting.outcomes import Outcomes, ablation, missing_in_ablation, outcomes
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.studies import NamedTable, Study
from bac_workbench.reporting.videos import SameSeed


@dataclass(frozen=True)
class StudyPart:
    """A study with its figures.

    Attributes:
        missing: what the study has no data for, with what would make them.
    """

    study: Study
    outcomes: list[Outcomes]
    videos: list[SameSeed]
    missing: list[str]


@dataclass(frozen=True)
class TaskPart:
    """Everything of one task."""

    task: str
    studies: list[StudyPart]
    evidence: list[Evidence]

    @property
    def title(self) -> str:
        return TITLES.get(self.task, self.task)

    def missing_behind(self, evidence: Evidence) -> list[str]:
        """What is not there of a checkpoint's profile, schedules and errors, with what would make them."""
        lines = []
        short = evidence.checkpoint_hash[:12]
        if evidence.profile is None:
            lines.append(f"no profile of checkpoint {short}, so no similarity maps: bac profile task={self.task}")
        if not evidence.grids:
            lines.append(f"no schedule of checkpoint {short}: bac profile task={self.task}")
        if evidence.surge is None:
            lines.append(f"no error surge, as no figures of checkpoint {short} are here: bac figures task={self.task}")
        unmarked = [grid.name for grid in evidence.grids if grid.tags["method"] == "bac" and grid.base is None]
        if unmarked:
            lines.append(
                f"BUA's additions are not marked in {', '.join(unmarked)}: the profile they follow from is not at hand"
            )
        return lines


def parts_of(
    studies: Sequence[Study],
    evidence: Sequence[Evidence],
    videos: dict[str, list[SameSeed]],
    no_room: dict[str, list[str]],
    megabytes: float,
) -> list[TaskPart]:
    """The parts of a report, in the order of the studies.

    Args:
        videos, no_room, megabytes: see `videos.with_room`.
    """
    found = []
    for task in dict.fromkeys(study.task for study in studies):
        of_task = [
            StudyPart(
                study,
                outcomes(study),
                videos[study.key],
                list(missing_in(study, videos[study.key], no_room[study.key], megabytes)),
            )
            for study in studies
            if study.task == task
        ]
        found.append(TaskPart(task, of_task, [item for item in evidence if item.task == task]))
    return found


def missing_in(study: Study, videos: list[SameSeed], no_room: list[str], megabytes: float) -> Iterator[str]:
    """What a study has no data for, a line each, with what would make them."""
    task = study.task
    evaluated = any(method.runs for method in study.methods)
    if not study.machine:
        yield f"no times, so scores stand against GFLOP: bac eval task={task} benchmark.n_chunks=10"
    elif untimed := [method.name for method in study.methods if method.ms is None]:
        yield f"not timed on this machine, so not among scores against ms: {'; '.join(untimed)}"
    if lacking := missing_in_ablation(study):
        bars = "ablation without" if len(ablation(study)) > 1 else "no ablation, for want of"
        caches = ",".join(lacking)
        yield f"{bars} {', '.join(FAMILIES[name].title for name in lacking)}: bac eval -m task={task} cache={caches}"
    if not outcomes(study):
        yield "no outcomes of pairs: the stored rows tell no successes; bac compare of new evaluations does"
    if not any(timed.rows for timed in study.timed):
        where = f" output_dir={study.source}" if evaluated else ""
        yield f"no latency breakdown: bac benchmark task={task}{where}"
    if no_room:
        yield f"videos without room in videos_mb={megabytes:g}: {', '.join(no_room)}"
    if not videos and not no_room:
        why = "no two methods have one of the same seed" if evaluated else "kept result files hold none"
        yield f"no videos ({why}): bac eval task={task} eval.n_videos=2, and report on that folder"
    for run, reason in study.left_out.items():
        yield f"left out: {run}: {reason}"


def surge_table(surge: Surge) -> Lines:
    """What `bac figures` says of each cache whose errors it measured."""
    columns = ["cache", "block updates", "GFLOP per chunk", "error, share of outputs", "executed actions off by"]
    return columns, [
        [
            cache.label,
            f"{cache.facts['block_updates']} of {cache.facts['block_updates_full']}",
            f"{cache.facts['gflop']:.2f}",
            f"{cache.facts['relative_error']:.3f}",
            f"{cache.facts['action_error']:.4f}",
        ]
        for cache in surge.caches
    ]


def overviews(studies: Sequence[Study]) -> list[NamedTable]:
    """Tables over tasks, titled: of the kept results over several noise seeds, and of evaluations of several tasks."""
    found = []
    kept = [study for study in studies if study.key.startswith(f"{study.task}-frontier") and not runs_of(study)]
    if kept:
        results = [TaskResults(study.task, [m.row for m in study.methods], study.facts) for study in kept]
        title = "Kept results: score, and paired differences to the full policy (bold: shown not worse by the margin)"
        found.append(NamedTable(title, tables.overview(results), tuple({"task": study.task} for study in kept)))
    rows = {study.key: [method.row for method in study.methods] for study in studies if runs_of(study)}
    if len(rows) > 1:
        tags = {method.name: method.tags for study in studies if runs_of(study) for method in study.methods}
        full = {"method": "full", "budget": "-"}
        lines = overview_lines(rows)
        title = "Evaluations: paired difference to full [95 %], and verdict"
        found.append(NamedTable(title, lines, tuple(tags.get(line[0], full) for line in lines[1])))
    return found


def runs_of(study: Study) -> bool:
    return any(method.runs for method in study.methods)
