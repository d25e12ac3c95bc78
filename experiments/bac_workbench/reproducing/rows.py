"""A line for every method on every policy: what `bac compare` says of it, its times, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.comparison import Comparison, compare
from bac_workbench.reporting.names import OWN_SAMPLER, label
from bac_workbench.reporting.timings import benchmarks_of_runs
from bac_workbench.reproducing.published import BUDGET, TABLE_1, TABLE_2, Printed, group_of, stages_of
from bac_workbench.setup.trainings import BEST, LAST

OWN_CHECKPOINT = ""
KINDS = (BEST, LAST, OWN_CHECKPOINT)
ABLATION = tuple(TABLE_2)


@dataclass(frozen=True)
class Row:
    """A method on the trainings of a task that are of one kind.

    Attributes:
        method: its cache, with the sampler where that is not the checkpoint's own: bac_s10, full@ddim16.
        name: for people.
        kind: `BEST`, `LAST`, or `OWN_CHECKPOINT` of a policy that is no published training.
        found: the row of the comparison.
        full: that of the full policy, of the same kind.
        times: runtime -> line of the interleaved benchmark.
        machine: that the times are of, '' where there are none.
    """

    task: str
    method: str
    name: str
    kind: str
    found: dict[str, Any]
    full: dict[str, Any]
    times: Mapping[str, dict[str, Any]]
    machine: str

    @property
    def group(self) -> str:
        return group_of(self.task, self.kind != OWN_CHECKPOINT)

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Column -> {"mean", "interval_95"}: the score, or the share of episodes with at least so many stages."""
        stages = {name: self.found["metrics"][name] for name in stages_of(self.task) if name in self.found["metrics"]}
        if stages:
            return {f"{self.task} {name}": value for name, value in stages.items()}
        return {self.task: {"mean": self.found["mean_score"], "interval_95": self.found["interval_95"]}}

    @property
    def flops_ratio(self) -> float:
        """How many times fewer FLOPs than the full policy's."""
        return self.full["gflop_per_chunk"] / self.found["gflop_per_chunk"]

    def printed(self, table: int) -> Printed | None:
        """The paper's row of the same method and, but for one that it does not name, the same budget."""
        return (TABLE_1 if table == 1 else TABLE_2).get(self.method)

    def printed_score(self, table: int) -> float | None:
        """The paper's number for this task and kind of checkpoint; it has none for other policies."""
        row = self.printed(table)
        if row is None or self.kind == OWN_CHECKPOINT or self.task not in row.scores:
            return None
        return row.scores[self.task][0 if self.kind == BEST else 1]


def read_rows(folder: Path, margin: float, tuned: Mapping[tuple[str, str], str]) -> tuple[list[Row], Comparison]:
    """The rows of one task; writes the comparison's files, too.

    Args:
        folder: holds its evaluations and, where it was timed, the benchmark.
        tuned: task and checkpoint -> what `bac tune` has chosen, by method and sampler.

    Raises:
        ConfigError: nothing there can be compared, or a file is damaged.
    """
    comparison = compare(folder, None, margin)
    return list(rows_of(folder, comparison, tuned)), comparison


def rows_of(folder: Path, comparison: Comparison, tuned: Mapping[tuple[str, str], str]) -> Iterator[Row]:
    timed = next(iter(benchmarks_of_runs(folder)), None)
    full = {kind_of(row): row for row in comparison.rows if row["is_reference"]}
    own = str(comparison.facts["checkpoint_sampler"])
    for row in comparison.rows:
        key = f"{row['method']}@{row['sampler']}"
        times = {} if timed is None else {item["runtime"]: item for item in timed.run.rows if of(item) == key}
        kind, task = kind_of(row), str(comparison.facts["task"])
        proven = any(tuned.get((task, digest)) == key for digest in row["checkpoint_hashes"])
        yield Row(
            task=task,
            method=row["method"] if row["sampler"] == own else key,
            name=name_of(row, own) + (", tuned" if proven else ""),
            kind=kind,
            found=row,
            full=full[kind],
            times=times,
            machine=timed.run.machine if timed is not None and times else "",
        )


def of(item: dict[str, Any]) -> str:
    return f"{item['method']}@{item['sampler']}"


def kind_of(row: dict[str, Any]) -> str:
    return row["checkpoint_type"] or OWN_CHECKPOINT


def name_of(row: dict[str, Any], own: str) -> str:
    """'BAC, budget 10'; rows that the comparison tells apart by a run keep that."""
    try:
        name = label(row["method"], row["sampler"] if row["sampler"] != own else OWN_SAMPLER)
    except KeyError:
        name = row["label"]
    apart = row["label"].rpartition(" [")
    return name if not apart[0] else f"{name} [{apart[2]}"


def in_table(row: Row, table: int) -> bool:
    """Table 2 is the ablation; Table 1 has all but the two caches that are of the ablation alone."""
    if table == 2:
        return row.method in ABLATION
    return row.method not in (f"unified_acs_s{BUDGET}", f"blockwise_acs_s{BUDGET}")
