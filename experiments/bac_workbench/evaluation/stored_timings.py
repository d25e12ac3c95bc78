"""Stored times of a chunk: what a benchmark_results.json says, and what a pooled row may say of several.

Times of two machines are never mixed: a row's come from one machine, which it names.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.common.config import ConfigError

#: what a time has to share with the evaluation that it lies beside
SAME_RUN = ("checkpoint_hash", "schedule_digest", "sampler", "runtime", "precision")


@dataclass(frozen=True)
class Timing:
    """Wall-clock of a chunk at batch 1, all from one interleaved run.

    Attributes:
        machine: processor, threads and GPU.
        ms_p50, ms_p95: milliseconds.
        speedup: against the plain policy.
        speedup_same_runtime: against the full policy with the checkpoint's own sampler in the same runtime.
    """

    machine: str
    ms_p50: float
    ms_p95: float
    speedup: float
    speedup_same_runtime: float


def read_timing(path: Path, provenance: dict[str, Any]) -> Timing | None:
    """The times beside an evaluation; None if there are none, or they are of another run.

    Args:
        path: of the benchmark_results.json.
        provenance: of the evaluation.

    Raises:
        ConfigError: the file is damaged; the message names it.
    """
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_bytes())
        made_with = stored["provenance"]
        if any(made_with.get(key) != provenance.get(key) for key in SAME_RUN):
            return None
        if not isinstance(machine := made_with["hardware"], str):
            raise ValueError("it names no machine")
        method = stored["method"]
        numbers = method["ms_p50"], method["ms_p95"], stored["speedup"], stored["speedup_same_runtime"]
        return Timing(machine, *map(_positive, numbers))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{path} is damaged ({what}): run the same evaluation again with benchmark.n_chunks=10, or remove it"
        ) from error


def pooled_timing(timings: Sequence[tuple[str, Timing | None]]) -> dict[str, Any] | None:
    """Medians over the runs that were timed on one machine: the one with most of them, of equals the first.

    Args:
        timings: (run, its times).

    Returns:
        `runs` names those that count, `other_machines` those that do not with their machine. None if none was timed.
    """
    timed = [(run, timing) for run, timing in timings if timing is not None]
    if not timed:
        return None
    machine = Counter(timing.machine for _, timing in timed).most_common(1)[0][0]
    counted = [timing for _, timing in timed if timing.machine == machine]
    names = ("ms_p50", "ms_p95", "speedup", "speedup_same_runtime")
    return {
        "machine": machine,
        **{name: statistics.median(getattr(timing, name) for timing in counted) for name in names},
        "runs": [run for run, timing in timed if timing.machine == machine],
        "other_machines": {run: timing.machine for run, timing in timed if timing.machine != machine},
    }


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} where a positive number should be")
    return float(value)
