"""What a report is of: studies, each a comparison of one task's methods, from evaluations or from kept result files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.comparison import Comparison, paired, task_folders
from bac_workbench.evaluation.comparison_tables import STAGES_TITLE, Lines, lines_of, machine_notes, stage_lines
from bac_workbench.evaluation.folder import RESULTS
from bac_workbench.reporting import tables
from bac_workbench.reporting.names import OWN_SAMPLER, TITLES, budget, family, label, score_name
from bac_workbench.reporting.stored import COMPARISON, FRONTIER, TaskResults, read_results, stored_tasks
from bac_workbench.reporting.timings import Timed, benchmarks_of_runs, stored_benchmarks
from diffusion_policy.common.config import ConfigError

HEADINGS = {FRONTIER: "the fastest methods, several noise seeds", COMPARISON: "methods and budgets, one noise seed"}


@dataclass(frozen=True)
class Method:
    """A row of a study.

    Attributes:
        row: of the comparison, as `bac compare` makes it; kept files of earlier versions have fewer keys.
        name: as the study's table names it.
        family: a key of `names.FAMILIES`.
        budget: '10', or '-' without one.
        ms: of a chunk at batch 1 on the study's machine; None if it was not timed there.
        runs: the folders of its evaluations, where they are at hand.
    """

    row: dict[str, Any]
    name: str
    family: str
    budget: str
    own_sampler: bool
    ms: float | None
    runs: tuple[Path, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """What the filters of the page look at."""
        return {"method": self.family, "budget": self.budget}


@dataclass(frozen=True)
class NamedTable:
    """A table, the tags of each of its lines, and what is said below it."""

    title: str
    lines: Lines
    tags: tuple[dict[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """One comparison of one task's methods.

    Attributes:
        key: no other study of the report has it; letters, digits, '-' and '_' alone.
        source: the file or folder that it was read from.
        machine: that the methods' times are of, '' where there are none.
        facts: what its runs share: `checkpoint_hash`, `weights`, ...
        timed: the interleaved timing runs.
    """

    key: str
    task: str
    heading: str
    source: str
    facts: dict[str, Any]
    methods: tuple[Method, ...]
    tables: tuple[NamedTable, ...]
    machine: str
    timed: tuple[Timed, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    tuned: str | None = None

    @property
    def title(self) -> str:
        return TITLES.get(self.task, self.task)

    @property
    def score_name(self) -> str:
        return score_name(self.task)

    @property
    def own_sampler(self) -> str:
        return str(self.facts.get("checkpoint_sampler", OWN_SAMPLER))

    @property
    def full(self) -> Method | None:
        return next((method for method in self.methods if method.family == "full"), None)


def read_studies(
    folders: Sequence[Path], margin: float, tuned: dict[tuple[str, str], str]
) -> tuple[list[Study], dict[str, str]]:
    """The studies in `folders` and below, tasks of this project first, and what was left out: folder -> reason.

    Args:
        margin: of the verdicts; those of kept files were made with their own.
        tuned: (task, checkpoint hash) -> key of the method that `bac tune` chose.

    Raises:
        ConfigError: a folder is not there, holds nothing to report, or a file is damaged.
    """
    studies: list[Study] = []
    left_out: dict[str, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: name one with evaluations or stored results")
        before = len(studies) + len(left_out)
        for task in stored_tasks(folder):
            studies += kept(folder, task, tuned)
        for path in task_folders(folder):
            try:
                studies.append(evaluated(path, paired(path, None, margin)))
            except ConfigError as error:
                left_out[str(path)] = str(error)
        if len(studies) + len(left_out) == before:
            raise ConfigError(
                f"{folder} holds neither evaluations (<run>/{RESULTS}) nor stored results (<task>_comparison.json, "
                "<task>_frontier.json): bac eval makes the first"
            )
    if not studies:
        raise ConfigError("nothing can be compared:\n" + "\n".join(f"  {k}: {v}" for k, v in left_out.items()))
    order = {task: place for place, task in enumerate(TITLES)}
    studies.sort(key=lambda study: (order.get(study.task, len(order)), study.task))
    return with_unique_keys(studies), left_out


def with_unique_keys(studies: Sequence[Study]) -> list[Study]:
    seen: dict[str, int] = {}
    found = []
    for study in studies:
        seen[study.key] = seen.get(study.key, 0) + 1
        found.append(study if seen[study.key] == 1 else replace(study, key=f"{study.key}-{seen[study.key]}"))
    return found


def slug(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in text)


# ---- kept result files ----
def kept(folder: Path, task: str, tuned: dict[tuple[str, str], str]) -> Iterator[Study]:
    """The stored comparisons of a task."""
    for kind in (FRONTIER, COMPARISON):
        path = folder / f"{task}_{kind}.json"
        try:
            results = read_results(folder, task, kind)
            if results is None:
                continue
            digest, _ = str(results.reference["checkpoint_hash"]), str(results.reference["weights"])
            chosen = tuned.get((task, digest)) if kind == FRONTIER else None
            methods = tuple(method_of(row, results) for row in tables.by_cost(results))
            shown = tuple(tables_of(results, kind, methods, chosen))
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise ConfigError(f"{path} is no stored comparison ({error!r}): restore it, or remove it") from error
        yield Study(
            key=slug(f"{task}-{kind}"),
            task=task,
            heading=HEADINGS[kind],
            source=str(path),
            facts=results.reference,
            methods=methods,
            tables=shown,
            machine="" if results.benchmark is None else f"compiled, {results.benchmark.machine}",
            timed=tuple(stored_benchmarks(folder, task if kind == COMPARISON else path.stem)),
            tuned=chosen,
        )


def method_of(row: dict[str, Any], results: TaskResults) -> Method:
    timed = None if results.benchmark is None else results.benchmark.row(tables.key_of(row), "compiled")
    return Method(
        row=row,
        name=label(row["method"], row["sampler"]),
        family=family(row["method"], row["sampler"]),
        budget=budget(row["method"]),
        own_sampler=row["sampler"] == OWN_SAMPLER,
        ms=None if timed is None else timed["ms_p50"],
    )


def tables_of(results: TaskResults, kind: str, methods: tuple[Method, ...], tuned: str | None) -> Iterator[NamedTable]:
    tags = tuple(method.tags for method in methods)
    if kind == FRONTIER:
        notes = (tables.frontier_conditions(results).replace("*", ""),)
        yield NamedTable("", tables.frontier_table(results, tuned), tags, notes)
        if (shares := tables.stages_table(results)) is not None:
            yield NamedTable(tables.STAGES_TITLE, shares, tags)
        if results.benchmark is not None:
            whole = {"method": "full", "budget": "-"}
            timed = tuple({"method": family(*pair(row)), "budget": budget(row["method"])} for row in levers(results))
            title = "What makes it fast, each factor apart (one interleaved run)"
            yield NamedTable(title, tables.levers_table(results.benchmark), (whole, *timed))
        return
    first, reference = results.rows[0], results.reference
    notes = [
        f"{first['n_episodes']} test seeds from {reference['test_seeds_from']}; the same initial states and the same "
        f"noise (seed {reference['seed']}) for every method. GFLOP count the tokens that are denoised."
    ]
    if results.benchmark is not None:
        notes.append(f"Times: batch 1, {results.benchmark.machine}; speed-up against the full policy, same runtime.")
    yield NamedTable("", tables.methods_table(results), tags, tuple(notes))


def pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["method"], row["sampler"]


def levers(results: TaskResults) -> list[dict[str, Any]]:
    assert results.benchmark is not None
    return tables.by_time(results.benchmark)


# ---- evaluations ----
def evaluated(folder: Path, found: Comparison) -> Study:
    """What `bac compare` says of a folder of evaluations."""
    own = found.facts["checkpoint_sampler"]
    machine = next((row["timing"]["machine"] for row in found.rows if row["timing"]), "")
    methods = tuple(
        Method(
            row=row,
            name=row["label"],
            family=family(row["method"], row["sampler"], own),
            budget=budget(row["method"]),
            own_sampler=row["sampler"] == own,
            ms=row["timing"]["ms_p50"] if row["timing"] and row["timing"]["machine"] == machine else None,
            runs=tuple(folder / run for run in row["runs"]),
        )
        for row in found.rows
    )
    tags = tuple(method.tags for method in methods)
    waits = f" ({found.reference_clock})" if found.reference_clock else ""
    notes = (f"paired with {', '.join(found.references)}{waits}", *machine_notes(found.rows))
    shown = [NamedTable("", lines_of(found.rows, found.margin), tags, notes)]
    if (shares := stage_lines(found.rows)) is not None:
        shown.append(NamedTable(STAGES_TITLE, shares, tags))
    return Study(
        key=slug(found.facts["task"] if folder.name == found.facts["task"] else f"{found.facts['task']}-{folder.name}"),
        task=found.facts["task"],
        heading=f"evaluations in {folder}",
        source=str(folder),
        facts=found.facts,
        methods=methods,
        tables=tuple(shown),
        machine=machine,
        timed=tuple(benchmarks_of_runs(folder)),
        left_out=found.skipped,
    )
