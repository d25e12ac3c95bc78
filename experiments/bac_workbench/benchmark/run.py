"""How fast every method is in every runtime, in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bac.native import build
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.benchmark.rows import ALL_TOKENS, Key, Run, make_row
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.evaluation.summary import SPEEDUPS
from bac_workbench.provenance import environment
from bac_workbench.replacing import refuse_another
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import Experiment
from bac_workbench.timing.breakdown import breakdown
from bac_workbench.timing.floors import measure_floors
from bac_workbench.timing.latency import interleaved


@dataclass(frozen=True)
class Prepared:
    """What is timed.

    Attributes:
        samplers: by method and runtime.
        schedules: of each method.
        seconds: that it took to make each sampler.
    """

    samplers: dict[Key, Runtime]
    schedules: dict[str, Schedule]
    seconds: dict[Key, float]


def run_benchmark(
    experiment: Experiment, say: Callable[[str], None] = print, progress: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Measures and returns {'rows': [...], 'floors': {...}, 'provenance': {...}}.

    The full policy with the checkpoint's own sampler is always measured too. In every runtime, for
    `speedup_same_runtime`; and on all tokens, where the methods denoise fewer: in the reference runtime that is the
    plain policy that `speedup` counts against.

    Args:
        say: is told what is done.
        progress: is called after each chunk.

    Raises:
        ConfigError: a method is not possible for this model and sampler.
    """
    settings, policy = experiment.settings, experiment.policy
    prepared = prepare(experiment, say)
    block_bytes = sum(p.numel() for p in policy.model.trunk.parameters()) * 4
    native = experiment.device.type == "cpu" and "compiled" in settings.runtimes
    floors = measure_floors(experiment.device, block_bytes // 2, native)
    rows: list[dict[str, Any]] = []
    for batch in settings.batches:
        latencies, actions = interleaved(policy, prepared.samplers, batch, settings.n_chunks, settings.warmup, progress)
        parts = {
            key: breakdown(policy, sampler, batch, latencies[key].p50) for key, sampler in prepared.samplers.items()
        }
        run = Run(
            policy=policy,
            own_sampler=experiment.own_sampler_name,
            own_steps=experiment.own_sampler.num_inference_steps,
            batch=batch,
            tokens=experiment.tokens,
            floors=floors,
            latencies=latencies,
            actions=actions,
        )
        for key, sampler in prepared.samplers.items():
            precision = "fp32" if key[1] == "reference" else settings.precision
            rows.append(make_row(run, key, prepared.schedules[key[0]], parts[key], sampler.bytes_per_weight, precision))
    return {
        "rows": rows,
        "floors": {
            **asdict(floors),
            "note": "matrix product, reading as many bytes as the packed weights, reading 256 MiB; best of 7",
        },
        "preparation_s": {
            f"{method} {runtime}": round(seconds, 3) for (method, runtime), seconds in prepared.seconds.items()
        },
        "compilation_s": round(build.build_seconds, 2),
        "runs_as": {
            f"{method} {runtime}": sampler.how  # which of several ran under the runtime's name
            for (method, runtime), sampler in prepared.samplers.items()
            if hasattr(sampler, "how")
        },
        "provenance": {
            **benchmark_settings(experiment),
            "checkpoint": str(experiment.loaded.source),
            "tokens": str(experiment.tokens),
            "rounds": settings.n_chunks,
            "speedups": SPEEDUPS,
            **environment(experiment.device, torch.get_num_threads(), experiment.simulator_packages),
        },
    }


def benchmark_settings(experiment: Experiment) -> dict[str, Any]:
    """What a benchmark is of."""
    settings = experiment.settings
    return {
        "task": settings.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "checkpoint_sampler": experiment.own_sampler_name,
        "checkpoint_noise": noise_digest(experiment.own_sampler.scheduler),
        "methods": list(settings.methods),
        "runtimes": list(settings.runtimes),
        "batches": settings.batches,
        "precision": settings.precision,
        "horizon": settings.horizon,
        "device": experiment.device.type,
    }


def check_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Refuses a folder that holds a benchmark of something else.

    Args:
        settings: see `benchmark_settings`.
        overwrite: whether it may be replaced.

    Raises:
        ConfigError: it does, or its benchmark_info.json is damaged.
    """
    if not overwrite:
        refuse_another(folder / "benchmark_info.json", "provenance", settings, "benchmark", alone=False)


def planned_methods(experiment: Experiment) -> dict[str, Experiment]:
    """The methods of the settings by label and sampler, such as bac_s7@ddim16; all of them possible.

    The full policy with the checkpoint's own sampler comes first, also where it is not asked for.

    Raises:
        ConfigError: one of them is not possible.
    """
    variants: dict[str, Experiment] = {}
    for text in ["full", *experiment.settings.methods]:
        method = parse_method(text)
        variant = experiment.with_sampler(method.sampler).with_cache(method.cache)
        variant.cache.check(variant.blocks, variant.steps)
        variants.setdefault(f"{variant.cache.label}@{variant.sampler_name}", variant)
    return variants


def combinations(experiment: Experiment) -> int:
    """How many (method, runtime) pairs are measured."""
    runtimes = set(experiment.settings.runtimes)
    of_methods = len(planned_methods(experiment)) * len(runtimes)
    if experiment.tokens.kept is None:
        return of_methods + ("reference" not in runtimes)
    return of_methods + len(runtimes | {"reference"})


def prepare(experiment: Experiment, say: Callable[[str], None]) -> Prepared:
    """Finds or makes the schedule of each method, and a sampler for each of its runtimes."""
    settings, kept = experiment.settings, experiment.tokens.kept
    prepared = Prepared({}, {}, {})

    def add(name: str, variant: Experiment, tokens: int | None, with_reference: bool) -> None:
        schedule = schedule_for(variant, say)
        prepared.schedules[name] = schedule or Schedule.full(variant.blocks, variant.steps)
        for runtime in dict.fromkeys([*(["reference"] if with_reference else []), *settings.runtimes]):
            precision = "fp32" if runtime == "reference" else settings.precision
            started = time.perf_counter()
            prepared.samplers[name, runtime] = make_sampler(
                variant.sampler, schedule, runtime, precision, tokens=tokens
            )
            prepared.seconds[name, runtime] = time.perf_counter() - started

    for index, (name, variant) in enumerate(planned_methods(experiment).items()):
        if index == 0 and kept is not None:
            add(name.replace("full", ALL_TOKENS, 1), variant, None, with_reference=True)
        add(name, variant, kept, with_reference=index == 0 and kept is None)
    return prepared
