"""Interleaved timing runs, kept as <name>_benchmark_<machine>_batch<n>.json or as `bac benchmark` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac_workbench.reporting.names import label
from bac_workbench.reporting.stored import Benchmark, read_benchmark, read_json
from diffusion_policy.common.config import ConfigError

#: parts of a chunk, in the order in which they run, and their titles
PARTS = {
    "observation_encoder": "observation encoder",
    "conditioning": "conditioning",
    "denoiser": "denoiser",
    "scheduler": "sampler's arithmetic",
}

#: of Okabe and Ito
PART_COLOURS = {
    "observation_encoder": "#0072B2",
    "conditioning": "#56B4E9",
    "denoiser": "#E69F00",
    "scheduler": "#7F7F7F",
}


@dataclass(frozen=True)
class Timed:
    """A timing run at one batch size.

    Attributes:
        key: names it within its study; letters, digits and '_' alone.
        kept: whether it lies among kept result files, whose tables name methods in words.
    """

    key: str
    batch: int
    run: Benchmark
    kept: bool

    @property
    def runtime(self) -> str:
        """The fastest kind of runtime that was timed."""
        return self.run.runtimes[-1]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows in that runtime with a breakdown, the slowest first."""
        rows = [row for row in self.run.rows if row["runtime"] == self.runtime and row.get("breakdown_ms")]
        return sorted(rows, key=lambda row: -row["ms_p50"])

    def name(self, row: dict[str, Any]) -> str:
        """A method as the study's tables name it."""
        return label(row["method"], row["sampler"]) if self.kept else f"{row['method']} {row['sampler']}"

    @property
    def title(self) -> str:
        return f"batch {self.batch}, {self.runtime}, {self.run.machine}"


def stored_benchmarks(folder: Path, name: str) -> Iterator[Timed]:
    """The kept timing runs of a study, by machine and batch size.

    Args:
        name: what their file names begin with, before _benchmark_.
    """
    for path in sorted(folder.glob(f"{name}_benchmark_*_batch*.json")):
        found = re.fullmatch(r"(\w+)_batch(\d+)", path.stem.removeprefix(f"{name}_benchmark_"))
        if found is not None:
            yield checked(path, found[0], int(found[2]), read_benchmark(folder, name, found[1], int(found[2])), True)


def benchmarks_of_runs(folder: Path) -> Iterator[Timed]:
    """What `bac benchmark` wrote to `folder`, a run per batch size."""
    rows_path, info_path = folder / "benchmark.json", folder / "benchmark_info.json"
    if not (rows_path.exists() and info_path.exists()):
        return
    rows, info = read_json(rows_path), read_json(info_path)
    try:
        batches = sorted({row["batch"] for row in rows})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{rows_path} is no benchmark ({error!r}): restore it, or remove it") from error
    for batch in batches:
        run = Benchmark([row for row in rows if row["batch"] == batch], info)
        yield checked(rows_path, f"batch{batch}", batch, run, False)


def checked(path: Path, key: str, batch: int, run: Benchmark, kept: bool) -> Timed:
    """Raises ConfigError unless everything that a report shows of it is there."""
    timed = Timed(key, batch, run, kept)
    try:
        for row in timed.rows:
            float(row["ms_p50"]), [float(row["breakdown_ms"][part]) for part in PARTS], timed.name(row)
        str(timed.title)
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is no benchmark ({error!r}): restore it, or remove it") from error
    return timed
