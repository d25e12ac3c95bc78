"""Result files that are kept: <task>_comparison.json, <task>_frontier.json and their benchmarks, in one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bac_workbench.reporting.names import ALL_TOKENS, TITLES, score_name, split_key
from diffusion_policy.common.config import ConfigError

#: the kinds of stored comparisons of a task: one noise seed and many settings; the fastest over several noise seeds
COMPARISON, FRONTIER = "comparison", "frontier"
RUNTIMES = ("reference", "planned", "compiled")


def read_json(path: Path) -> Any:
    """The content of a file.

    Raises:
        ConfigError: it is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({error}): restore it, or remove it") from error


@dataclass(frozen=True)
class Benchmark:
    """One interleaved timing run: rows of methods in runtimes, and the machine that measured them."""

    rows: list[dict[str, Any]]
    info: dict[str, Any]

    def row(self, key: str, runtime: str) -> dict[str, Any] | None:
        """The timings of a method in a runtime; None where it was not measured."""
        wanted = (*split_key(key), runtime)
        return next((row for row in self.rows if (row["method"], row["sampler"], row["runtime"]) == wanted), None)

    @property
    def plain(self) -> dict[str, Any]:
        """The plain policy: every token, module by module."""
        found = self.row(ALL_TOKENS, "reference") or self.row("full", "reference")
        if found is None:
            raise KeyError("the full policy was not timed in runtime reference")
        return found

    def milliseconds(self, key: str, runtime: str) -> float:
        row = self.row(key, runtime)
        if row is None:
            raise KeyError(f"{key} was not timed in runtime {runtime}")
        return row["ms_p50"]

    def speedup(self, key: str, runtime: str) -> float:
        """Against the full policy with the checkpoint's own sampler in the same runtime: a ratio of medians."""
        return self.milliseconds("full", runtime) / self.milliseconds(key, runtime)

    def runtime_gain(self, runtime: str) -> float:
        """What a runtime alone makes of the full policy, on all tokens."""
        key = "full" if self.row(ALL_TOKENS, "reference") is None else ALL_TOKENS
        return self.milliseconds(key, "reference") / self.milliseconds(key, runtime)

    @cached_property
    def keys(self) -> list[str]:
        """The methods measured, in the order of the run."""
        return list(dict.fromkeys(f"{row['method']}@{row['sampler']}" for row in self.rows))

    @property
    def runtimes(self) -> list[str]:
        return [name for name in RUNTIMES if any(row["runtime"] == name for row in self.rows)]

    @property
    def machine(self) -> str:
        facts = self.info["provenance"]
        versions = facts["versions"]
        return (
            f"{facts['hardware']}, torch {versions['torch']}, diffusers {versions['diffusers']}, {facts['precision']}, "
            f"medians of {self.rows[0]['n']} rounds of one interleaved run"
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
        return TITLES.get(self.task, self.task)

    @property
    def score_name(self) -> str:
        return score_name(self.task)

    @property
    def stages(self) -> list[str]:
        """Metrics p1, p2, ... as far as a demonstration goes; none for a task without stages."""
        names = [name for name in self.rows[0].get("metrics", {}) if name in ("p1", "p2", "p3", "p4")]
        return sorted(names)


def read_benchmark(folder: Path, name: str, machine: str, batch: int) -> Benchmark:
    """<name>_benchmark_<machine>_batch<batch>.json with <name>_benchmark_<machine>_info.json."""
    stem = f"{name}_benchmark_{machine}"
    return Benchmark(read_json(folder / f"{stem}_batch{batch}.json"), read_json(folder / f"{stem}_info.json"))


def read_results(folder: Path, task: str, kind: str) -> TaskResults | None:
    """A stored comparison with the timings of batch 1 on a CPU that lie beside it; None if there is none.

    Args:
        kind: `COMPARISON` or `FRONTIER`.
    """
    path = folder / f"{task}_{kind}.json"
    if not path.exists():
        return None
    stored = read_json(path)
    name = task if kind == COMPARISON else f"{task}_{kind}"
    timed = (folder / f"{name}_benchmark_cpu_batch1.json").exists()
    return TaskResults(
        task, stored["rows"], stored["reference"], read_benchmark(folder, name, "cpu", 1) if timed else None
    )


def stored_tasks(folder: Path) -> list[str]:
    """The tasks that have a stored comparison in `folder`, those of this project first and in their order."""
    found = {path.name.removesuffix(f"_{kind}.json") for kind in KINDS for path in folder.glob(f"*_{kind}.json")}
    return [task for task in TITLES if task in found] + sorted(found - set(TITLES))


KINDS = (FRONTIER, COMPARISON)
