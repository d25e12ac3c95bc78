"""Rows of a benchmark, their means over trainings, and the paper's Table 1 in Markdown and LaTeX."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac_workbench.released.names import BLOCK_PUSHING, KITCHEN, MH, PH
from bac_workbench.released.result_files import LOG, RESULTS
from bac_workbench.setup.trainings import BEST, LAST
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path

RECORD = "cell.json"  # beside a cell's results: what made them
COLUMNS = ("Method", "Steps", "Task", "Seed", "CheckpointType", "SuccessRate", "FLOPs", "Speedup")
SUMMARY = ("TaskType", "Method", "Steps", "Task", "MaxSuccessRate", "AvgSuccessRate", "FLOPs", "Speedup")
#: the metrics that a task is reported by, as fast_eval_log.json names them, in place of its score
STAGES = {
    "block_pushing": {"test/p1": "block_pushing_p1", "test/p2": "block_pushing_p2"},
    "kitchen": {f"test/p_{n}": f"kitchen_p{n}" for n in (1, 2, 3, 4)},
}
#: type of task -> its columns in the table
TYPES = {
    "ph": PH,
    "mh": MH,
    "bp": tuple(STAGES[BLOCK_PUSHING[0]].values()),
    "kitchen": tuple(STAGES[KITCHEN[0]].values()),
}
TABLES = {
    "Proficient-human demonstrations": ("ph",),
    "Mixed-human demonstrations": ("mh",),
    "Multi-stage tasks": ("bp", "kitchen"),
}
TITLES = {"transport": "Trans", "tool_hang": "Tool", "block_pushing": "BP", "kitchen": "Kit", "pusht": "Push-T"}
EMPTY = "--"


@dataclass(frozen=True)
class Cell:
    """One method on one checkpoint."""

    method: str
    steps: str
    task: str
    seed: str
    kind: str


@dataclass(frozen=True)
class Row:
    """A line of results.csv; `flops` of a chunk, `speedup` of wall-clock or None where nothing was timed."""

    method: str
    steps: str
    task: str
    seed: str
    kind: str
    success_rate: float
    flops: float
    speedup: float | None

    @property
    def task_type(self) -> str:
        """Which of the tables it is in; empty for a task that the paper does not have."""
        return next((name for name, tasks in TYPES.items() if self.task in tasks), "")

    def fields(self) -> list[str]:
        speedup = "-" if self.speedup is None else f"{self.speedup:.4g}"
        rate = f"{self.success_rate:.4f}"
        return [self.method, self.steps, self.task, self.seed, self.kind, rate, f"{self.flops:.0f}", speedup]


def cell_rows(cell: Cell, folder: Path) -> list[Row]:
    """The rows of an evaluated cell: one, or one for each stage of a multi-stage task.

    Raises:
        ConfigError: its files are damaged.
    """
    try:
        results, log = (json.loads((folder / name).read_bytes()) for name in (RESULTS, LOG))
        values = {name: log[key] for key, name in STAGES.get(cell.task, {}).items()}
        values = values or {cell.task: results["mean_score"]}
        flops, speedup = float(results["flops"]), results["speedup"]
        return [
            Row(cell.method, cell.steps, task, cell.seed, cell.kind, float(value), flops, speedup)
            for task, value in values.items()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} holds damaged results ({error!r}): evaluate again with --force") from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """What made a cell's results; None: they are not there, or not complete."""
    if not (folder / RESULTS).exists() or not (folder / RECORD).exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return record if isinstance(record, dict) else None
    except ValueError:
        return None


def stored_rows(output: Path, settings: Sequence[str]) -> list[Row]:
    """The rows of all cells below a folder that were evaluated with these settings, in the order of the tables."""
    order = [*PH, *MH, *STAGES]
    found = []
    for path in output.glob(f"*/*/*/{RECORD}"):
        record = read_record(path.parent)
        if record is not None and record.get("settings") == list(settings):
            found.append((Cell(**record["cell"]), path.parent))
    methods = {"Full": 0, "Uniform": 1}

    def key(item: tuple[Cell, Path]) -> tuple[Any, ...]:
        cell = item[0]
        steps = int(cell.steps) if cell.steps.isdecimal() else 0
        place = order.index(cell.task) if cell.task in order else len(order)
        return place, cell.task, methods.get(cell.method, 2), cell.method, steps, cell.seed, cell.kind != BEST

    return [row for cell, folder in sorted(found, key=key) for row in cell_rows(cell, folder)]


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """results.csv, a file for each type of task, summary.csv and Table 1, each complete or as it was."""
    write_csv(folder / "results.csv", COLUMNS, (row.fields() for row in rows))
    for name in TYPES:
        if of_type := [row for row in rows if row.task_type == name]:
            write_csv(folder / f"{name}_results.csv", COLUMNS, (row.fields() for row in of_type))
    write_csv(folder / "summary.csv", SUMMARY, (pooled.fields() for pooled in pool(rows)))
    tables = [(title, *table(rows, types)) for title, types in TABLES.items()]
    write_text(folder / "table1.md", "\n\n".join(markdown(*parts) for parts in tables if parts[2]))
    write_text(folder / "table1.tex", "\n\n".join(latex(*parts) for parts in tables if parts[2]))


@dataclass(frozen=True)
class Pooled:
    """A method on a task: means over its trainings, of the best and of the last checkpoints; None: there are none."""

    task_type: str
    method: str
    steps: str
    task: str
    best: float | None
    last: float | None
    flops: float | None
    speedup: float | None

    def fields(self) -> list[str]:
        numbers = [formatted(self.best, ".4f"), formatted(self.last, ".4f"), formatted(self.flops, ".0f")]
        return [self.task_type, self.method, self.steps, self.task, *numbers, formatted(self.speedup, ".4g")]


def pool(rows: Sequence[Row]) -> list[Pooled]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.steps, row.task), []).append(row)
    return [
        Pooled(
            group[0].task_type,
            method,
            steps,
            task,
            mean(row.success_rate for row in group if row.kind == BEST),
            mean(row.success_rate for row in group if row.kind == LAST),
            mean(row.flops for row in group),
            mean(row.speedup for row in group),
        )
        for (method, steps, task), group in groups.items()
    ]


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def formatted(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(rows: Sequence[Row], types: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: success of the best / last checkpoints, mean, FLOPs and speedup of every method.

    The mean is over the tasks that have a number, and says so where some have none.
    """
    tasks = [task for name in types for task in TYPES[name]]
    lines: dict[tuple[str, str], dict[str, Pooled]] = {}
    for pooled in pool([row for row in rows if row.task_type in types]):
        lines.setdefault((pooled.method, pooled.steps), {})[pooled.task] = pooled
    body = []
    for (method, steps), found in lines.items():
        known = list(found.values())
        means = pair(mean(item.best for item in known), mean(item.last for item in known))
        partly = "" if len(known) == len(tasks) else f" ({len(known)} of {len(tasks)})"
        flops, speedup = mean(item.flops for item in known), mean(item.speedup for item in known)
        cells = [pair(found[task].best, found[task].last) if task in found else EMPTY for task in tasks]
        cost = [EMPTY if flops is None else f"{flops / 1e9:.2f} G", EMPTY if speedup is None else f"{speedup:.2f}x"]
        body.append([row_title(method, steps), *cells, means + partly, *cost])
    return ["Method", *map(title_of, tasks), "Mean", "FLOPs", "Speedup"], body


def row_title(method: str, steps: str) -> str:
    """'BAC S=10', or 'Full'."""
    return method if steps == "-" else f"{method} S={steps}"


def pair(best: float | None, last: float | None) -> str:
    return "/".join(EMPTY if value is None else f"{value:.2f}" for value in (best, last))


def title_of(task: str) -> str:
    """'tool_hang_ph' -> 'Tool ph', 'block_pushing_p1' -> 'BP p1'."""
    if task in TITLES:
        return TITLES[task]
    name, _, suffix = task.rpartition("_")
    return f"{TITLES.get(name, name.capitalize())} {suffix}"


def markdown(title: str, head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *body]
    note = "Success rates of the best / last checkpoints, means over the trainings."
    return "\n".join([f"**{title}.** {note}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def latex(title: str, head: list[str], body: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    columns = "l" + "c" * (len(head) - 1)
    names = [re.sub(r" (ph|mh|p\d)$", r"$_{\1}$", title) for title in head]
    rows = [r"\toprule", line(names), r"\midrule", *map(line, body), r"\bottomrule"]
    return "\n".join([f"% {title}", rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"])


def write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
