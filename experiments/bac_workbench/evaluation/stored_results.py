"""A stored evaluation, read and checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.stored_timings import Timing, read_timing
from bac_workbench.settings.clock import STOPPED
from diffusion_policy.common.config import ConfigError

#: what two evaluations must share, beside the noise seed, for their episodes to be pairs; their runtime may differ,
#: which gives the same actions to rounding, and their precision, which is part of a method
SAME = (
    "task",
    "checkpoint_hash",
    "weights",
    "checkpoint_sampler",
    "checkpoint_noise",
    "test_seeds_from",
    "n_action_steps",
    "n_latency_steps",
    "max_steps",
    "adapter",
)
#: what a comparison needs to know of a run; evaluations of earlier versions recorded less
RECORDED = (*SAME, "precision", "sampler_steps", "n_blocks", "seed", "runtime")

#: the precision that others are compared with
EXACT = "fp32"
#: published training (-1: none was named), its kind of checkpoint, noise seed
Draw = tuple[int, str, int]


@dataclass(frozen=True)
class StoredEvaluation:
    """What an eval_results.json says.

    Attributes:
        run: the name of its folder.
        scores, env_steps, metrics, successes: of the test episodes, by seed; `env_steps` are control steps. None where
            the file lacks them.
        means: the stored means of the metrics over all test episodes.
        updates, full_updates: block updates per chunk, with this sampler's full policy beside.
        incomplete: why it cannot be compared, None if it can.
        timing: of its chunks, None if they were not timed.
    """

    run: str
    method: str
    sampler: str
    scores: dict[int, float]
    env_steps: dict[int, int] | None
    metrics: dict[int, dict[str, float]] | None
    means: dict[str, Any]
    updates: int
    full_updates: int
    gflop: float
    provenance: dict[str, Any]
    incomplete: str | None
    successes: dict[int, bool] | None
    timing: Timing | None

    @property
    def noise_seed(self) -> int:
        return self.provenance["seed"]

    @property
    def train(self) -> int | None:
        """Which of the published trainings it is of, None if none was named."""
        return self.provenance.get("train")

    @property
    def draw(self) -> Draw:
        """What tells the runs of one method apart that are pooled."""
        return -1 if self.train is None else self.train, self.provenance.get("checkpoint_type") or "", self.noise_seed

    @property
    def precision(self) -> str:
        return self.provenance.get("precision", EXACT)

    @property
    def clock(self) -> Any:
        """See `setup.clock.clock_facts`; evaluations of earlier versions knew only a world that waits."""
        return self.provenance.get("clock", STOPPED)

    def why_not_full(self) -> str | None:
        """Why this is not the full policy: every block at every step of the checkpoint's own sampler. None if it is."""
        if self.incomplete:
            return self.incomplete
        own, all_updates = (
            self.provenance["checkpoint_sampler"],
            self.provenance["sampler_steps"] * self.provenance["n_blocks"],
        )
        if self.method != "full":
            return "it caches"
        if self.sampler != own or self.provenance.get("sampler") != own:
            return f"the checkpoint's own sampler is {own}"
        if not self.updates == self.full_updates == all_updates:
            return f"{self.updates} block updates of {all_updates}"
        return None


def read_evaluation(path: Path) -> StoredEvaluation:
    """Reads an eval_results.json; one of the released project's form names the file with all of it.

    Raises:
        ConfigError: it is damaged; the message names it.
    """
    try:
        stored = json.loads(path.read_bytes())
        if "provenance" not in stored and isinstance(stored.get("details"), str):
            details = path.parent / stored["details"]
            stored = json.loads(details.read_bytes())
        else:
            details = path
        provenance = stored["provenance"]
        if not isinstance(provenance, dict):
            raise TypeError("its provenance is no record")
        tests = [row for row in stored["episodes"] if row["split"] == "test"]
        scores = {_integer(row["seed"]): _finite(row["score"]) for row in tests}
        if len(scores) < len(tests):
            raise ValueError("it holds a test seed twice")
        timed = tests and all("env_steps" in row for row in tests)
        env_steps = {row["seed"]: _integer(row["env_steps"]) for row in tests} if timed else None
        metrics = (
            {row["seed"]: {str(name): _finite(value) for name, value in row["metrics"].items()} for row in tests}
            if tests and all(row.get("metrics") for row in tests)
            else None
        )
        told = tests and all(isinstance(row.get("success"), bool) for row in tests)
        means = {
            str(name): {"mean": _finite(item["mean"]), "interval_95": [_finite(bound) for bound in item["interval_95"]]}
            for name, item in stored.get("metrics", {}).items()
        }
        missing = [name for name in RECORDED if name not in provenance]
        if "adapter" in provenance:
            provenance["adapter"] = without_code_names(provenance["adapter"])
        check_clock(provenance.get("clock", STOPPED))
        if not missing:
            for name in ("sampler_steps", "n_blocks", "seed"):
                _integer(provenance[name])
            for name in ("task", "checkpoint_hash", "weights", "checkpoint_sampler", "precision", "runtime"):
                _text(provenance[name])
            for name, check in (("schedule_digest", _text), ("checkpoint_type", _text), ("train", _integer)):
                if provenance.get(name) is not None:
                    check(provenance[name])
        return StoredEvaluation(
            path.parent.name,
            _text(stored["method"]),
            _text(stored["sampler"]),
            scores,
            env_steps,
            metrics,
            means,
            _integer(stored["block_updates"]["per_chunk"]),
            _integer(stored["block_updates"]["full"]) if not missing else 0,
            _finite(stored["flops"]["gflop_per_chunk"]),
            provenance,
            f"made by an earlier version, which did not record {', '.join(missing)}: run it again" if missing else None,
            {row["seed"]: row["success"] for row in tests} if told else None,
            read_timing(details.with_name("benchmark_results.json"), provenance),
        )
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{path} is damaged ({what}): run the same evaluation again, which writes it anew from the finished "
            "episodes, or remove it"
        ) from error


def check_clock(clock: Any) -> None:
    """Raises ValueError unless it is what `setup.clock.clock_facts` says of a clock."""
    if clock == STOPPED:
        return
    times = clock.get("latency_ms") if isinstance(clock, dict) else None
    if not isinstance(times, list) or not times or not isinstance(clock.get("measured"), bool):
        raise ValueError("its clock is none")
    _text(clock.get("thinking"))
    if min(map(_finite, times)) < 0:
        raise ValueError("its clock has a negative time")


def without_code_names(simulation: Any) -> Any:
    """The recorded settings of a simulation without the name of the function that makes it and of its task.

    They decide nothing, a function's name may change from one version to the next, and the task is recorded by itself.
    """
    if not isinstance(simulation, dict):
        return simulation
    return {name: value for name, value in simulation.items() if name not in ("_target_", "name")}


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} where a number should be")
    return float(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} where a whole number should be")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where a name should be")
    return value
