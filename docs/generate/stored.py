"""The stored result files of docs/results, as the generated pages read them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
RESULTS = DOCS / "results"
OWN_SAMPLER = "ddpm100"  # of every bundled policy

# Task -> heading of its page, in the order of the tables.
TITLES = {
    "pusht_lowdim": "Push-T",
    "block_pushing": "Block Pushing",
    "kitchen_scripted_demos": "Kitchen",
    "lift_scripted_demos": "Lift from images",
    "can_scripted_demos": "Can from images",
}
METHOD_NAMES = {
    "uniform": "Uniform",
    "bac": "BAC",
    "blockwise_acs": "block-wise ACS",
    "unified_acs": "unified ACS",
}
OPTION_NAMES = {"k": "top_k {}", "r": "refresh at step {}"}


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def split_key(key: str) -> tuple[str, str]:
    """'bac_s8@ddim16' -> its method and its sampler, which is the checkpoint's own where none is named."""
    method, _, sampler = key.partition("@")
    return method, sampler or OWN_SAMPLER


def label(method: str, sampler: str) -> str:
    """A method as the tables name it: 'BAC, budget 8, on DDIM-16'."""
    solver = re.sub(r"([a-z]+)(\d+)", lambda match: f"{match[1].upper()}-{match[2]}", sampler)
    if method == "full":
        return f"full policy ({solver})" if sampler == OWN_SAMPLER else solver
    cache, _, settings = method.partition("_s")
    budget, *options = settings.split("_")
    parts = [METHOD_NAMES[cache], f"budget {budget}"]
    parts += [OPTION_NAMES[option[0]].format(option[1:]) for option in options]
    return ", ".join(parts if sampler == OWN_SAMPLER else [*parts, f"on {solver}"])


@dataclass(frozen=True)
class Benchmark:
    """One interleaved timing run: rows of methods in runtimes, and the machine that measured them."""

    rows: list[dict[str, Any]]
    info: dict[str, Any]

    def row(self, key: str, runtime: str) -> dict[str, Any] | None:
        """The timings of a method in a runtime; None where it was not measured."""
        wanted = (*split_key(key), runtime)
        return next((row for row in self.rows if (row["method"], row["sampler"], row["runtime"]) == wanted), None)

    def milliseconds(self, key: str, runtime: str) -> float:
        row = self.row(key, runtime)
        if row is None:
            raise KeyError(f"{key} was not timed in runtime {runtime}")
        return row["ms_p50"]

    def speedup(self, key: str, runtime: str) -> float:
        """Against the full policy with the checkpoint's own sampler in the same runtime: a ratio of medians."""
        return self.milliseconds("full", runtime) / self.milliseconds(key, runtime)

    def runtime_gain(self, runtime: str) -> float:
        """What a runtime alone makes of the full policy."""
        return self.milliseconds("full", "reference") / self.milliseconds("full", runtime)

    @cached_property
    def keys(self) -> list[str]:
        """The methods measured, in the order of the run."""
        return list(dict.fromkeys(f"{row['method']}@{row['sampler']}" for row in self.rows))

    @property
    def runtimes(self) -> list[str]:
        return [name for name in ("reference", "planned", "compiled") if any(r["runtime"] == name for r in self.rows)]

    @property
    def machine(self) -> str:
        facts = self.info["provenance"]
        versions = facts["versions"]
        return (
            f"{facts['hardware']}, torch {versions['torch']}, diffusers {versions['diffusers']}, {facts['precision']}, "
            f"medians of {self.rows[0]['n']} rounds of one interleaved run"
        )


def read_benchmark(task: str, machine: str, batch: int) -> Benchmark:
    return Benchmark(
        read(f"{task}_benchmark_{machine}_batch{batch}.json"), read(f"{task}_benchmark_{machine}_info.json")
    )


@dataclass(frozen=True)
class TaskResults:
    """The comparison of one task's methods, and their timings where they were measured."""

    task: str
    rows: list[dict[str, Any]]
    reference: dict[str, Any]
    benchmark: Benchmark | None = field(default=None)

    def row(self, key: str) -> dict[str, Any]:
        for row in self.rows:
            if (row["method"], row["sampler"]) == split_key(key):
                return row
        raise KeyError(f"{self.task} has no result of {key}")

    @property
    def title(self) -> str:
        return TITLES[self.task]

    @property
    def score_name(self) -> str:
        return "success rate" if self.task.startswith(("lift", "can", "square")) else "score"

    @property
    def stages(self) -> list[str]:
        """Metrics p1, p2, ... as far as a demonstration goes; none for a task without stages."""
        names = [name for name in self.rows[0].get("metrics", {}) if name in ("p1", "p2", "p3", "p4")]
        return sorted(names)


def read_task(task: str) -> TaskResults:
    stored = read(f"{task}_comparison.json")
    timed = (RESULTS / f"{task}_benchmark_cpu_batch1.json").exists()
    return TaskResults(
        task, stored["rows"], stored["reference"], read_benchmark(task, "cpu", 1) if timed else None
    )


def estimate(mean: float, interval: list[float], digits: int, sign: bool = False) -> str:
    """'0.962 [0.920, 1.000]'."""
    plus = "+" if sign else ""
    low, high = interval
    return f"{mean:{plus}.{digits}f} [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
