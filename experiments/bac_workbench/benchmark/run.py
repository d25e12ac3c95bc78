"""How fast every method is in every runtime, in one interleaved run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from bac.denoiser import model_blocks
from bac.flops import denoiser_cost, hoisted_cost
from bac.native import build
from bac.runtime.choose import RUNTIMES, make_sampler
from bac.runtime.contract import Runtime
from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.caching.methods import Method, parse_method
from bac_workbench.caching.schedules import check_cache, schedule_for
from bac_workbench.evaluation.evaluate import SPEEDUPS
from bac_workbench.provenance import environment
from bac_workbench.setup.experiment import Experiment, attach
from bac_workbench.setup.samplers import build_sampler, name_of
from bac_workbench.timing.breakdown import breakdown
from bac_workbench.timing.floors import Floors, measure_floors, weight_bytes_per_chunk
from bac_workbench.timing.latency import Latency, interleaved, speed_ratio
from diffusion_policy.common.config import ConfigError


def run_benchmark(experiment: Experiment, say=print, progress=None) -> dict[str, Any]:
    """Measures and returns {'rows': [...], 'floors': {...}, 'provenance': {...}}.

    The full policy with the checkpoint's own sampler is always measured too: in the reference runtime, where it is the
    plain policy that `speedup` counts against, and in every other runtime, for `speedup_same_runtime`.
    """
    cfg, policy = experiment.cfg, experiment.policy
    samplers, schedules, prepared = prepare(experiment, say)
    block_bytes = sum(p.numel() for p in policy.model.trunk.parameters()) * 4
    floors = measure_floors(experiment.device, block_bytes // 2)
    rows: list[dict[str, Any]] = []
    for batch in batches(cfg):
        latencies, actions = interleaved(policy, samplers, batch, int(cfg.n_chunks), int(cfg.warmup), progress)
        shares = {key: breakdown(policy, sampler, batch, latencies[key].p50) for key, sampler in samplers.items()}
        for key in samplers:
            rows.append(
                make_row(
                    experiment,
                    key,
                    batch,
                    schedules[key[0]],
                    latencies,
                    actions,
                    shares[key],
                    floors,
                    samplers[key].bytes_per_weight,
                )
            )
    return {
        "rows": rows,
        "floors": {
            **floors.__dict__,
            "note": "fp32 matrix product, reading as many bytes as the packed weights, reading 256 MiB; best of 7",
        },
        "preparation_s": {f"{method} {runtime}": round(seconds, 3) for (method, runtime), seconds in prepared.items()},
        "compilation_s": round(build.build_seconds, 2),
        "provenance": {
            **benchmark_settings(experiment),
            "checkpoint": str(experiment.loaded.source),
            "rounds": int(cfg.n_chunks),
            "speedups": SPEEDUPS,
            **environment(experiment.device, torch.get_num_threads()),
        },
    }


def batches(cfg: DictConfig) -> list[int]:
    return [int(b) for b in (cfg.batch if OmegaConf.is_list(cfg.batch) else [cfg.batch])]


def benchmark_settings(experiment: Experiment) -> dict[str, Any]:
    """What a benchmark is of."""
    cfg = experiment.cfg
    return {
        "task": cfg.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "checkpoint_sampler": experiment.own_sampler,
        "checkpoint_noise": noise_digest(experiment.own.scheduler),
        "methods": [str(text) for text in cfg.methods],
        "runtimes": list(cfg.runtimes),
        "batches": batches(cfg),
        "precision": cfg.precision,
        "device": experiment.device.type,
    }


def check_folder(folder: Path, experiment: Experiment) -> None:
    """Refuses a folder that holds a benchmark of something else.

    Raises:
        ConfigError: it does, or its benchmark_info.json is damaged.
    """
    path = folder / "benchmark_info.json"
    if not path.exists() or experiment.cfg.overwrite:
        return
    try:
        stored = json.loads(path.read_bytes())["provenance"]
        settings = benchmark_settings(experiment)
        differs = [
            f"{name} {stored.get(name, 'not recorded')} there, {value} now"
            for name, value in settings.items()
            if stored.get(name) != value
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): restore it, choose another output_dir=, or overwrite=true to replace it"
        ) from error
    if differs:
        raise ConfigError(
            f"{folder} holds another benchmark ({'; '.join(differs)}): choose another output_dir=, or overwrite=true to replace it"
        )


def planned_methods(experiment: Experiment) -> list[Method]:
    """The methods of the config, the full policy with the checkpoint's own sampler first; all of them possible.

    Raises:
        ConfigError: one of them is not, or a runtime is unknown.
    """
    cfg = experiment.cfg
    unknown = [runtime for runtime in cfg.runtimes if runtime not in RUNTIMES]
    if unknown or not len(cfg.runtimes):
        raise ConfigError(f"runtimes={list(cfg.runtimes)} is not possible: use a list of {', '.join(RUNTIMES)}")
    methods = [parse_method("full"), *(parse_method(text) for text in cfg.methods)]
    blocks = model_blocks(experiment.policy.model)
    for method in methods:
        check_cache(method.cache, blocks, build_sampler(experiment.own, method.sampler).num_inference_steps)
    return methods


def combinations(experiment: Experiment) -> int:
    """How many (method, runtime) pairs are measured."""
    names = {
        (method.label, name_of(build_sampler(experiment.own, method.sampler), experiment.own))
        for method in planned_methods(experiment)
    }
    runtimes = set(experiment.cfg.runtimes)
    return len(names) * len(runtimes) + ("reference" not in runtimes)


def prepare(
    experiment: Experiment, say
) -> tuple[dict[tuple[str, str], Runtime], dict[str, Schedule], dict[tuple[str, str], float]]:
    """Samplers by (method, runtime), the schedule of each method, and the seconds it took to make each sampler."""
    cfg, policy = experiment.cfg, experiment.policy
    blocks = model_blocks(policy.model)
    samplers: dict[tuple[str, str], Runtime] = {}
    schedules: dict[str, Schedule] = {}
    seconds: dict[tuple[str, str], float] = {}
    for method in planned_methods(experiment):
        attach(experiment, method.sampler)
        name = f"{method.label}@{experiment.sampler}"
        if name in schedules:
            continue
        schedule = schedule_for(experiment, method.cache, say)
        schedules[name] = schedule or Schedule.full(blocks, policy.sampler.num_inference_steps)
        plain = name == plain_policy(experiment)[0]
        for runtime in dict.fromkeys([*(["reference"] if plain else []), *cfg.runtimes]):
            precision = "fp32" if runtime == "reference" else cfg.precision
            started = time.perf_counter()
            samplers[name, runtime] = make_sampler(policy.sampler, schedule, runtime, precision)
            seconds[name, runtime] = time.perf_counter() - started
    return samplers, schedules, seconds


def plain_policy(experiment: Experiment, runtime: str = "reference") -> tuple[str, str]:
    """The key of the full policy with the checkpoint's own sampler in a runtime."""
    return f"full@{experiment.own_sampler}", runtime


def make_row(
    experiment: Experiment,
    key: tuple[str, str],
    batch: int,
    schedule: Schedule,
    latencies: dict[Any, Latency],
    actions: dict[Any, torch.Tensor],
    parts: dict[str, float],
    floors: Floors,
    bytes_per_weight: int,
) -> dict[str, Any]:
    """One line of benchmark.json."""
    method, runtime = key
    label, _, sampler = method.partition("@")
    latency, reference, same_runtime = (
        latencies[key],
        latencies[plain_policy(experiment)],
        latencies[plain_policy(experiment, runtime)],
    )
    cost = denoiser_cost(experiment.policy.model)
    plain = Schedule.full(schedule.blocks, experiment.own.num_inference_steps)
    flops, bound = cost.flops(schedule), cost.flops(plain) / cost.flops(schedule)
    speedup, speedup_same_runtime = speed_ratio(reference, latency), speed_ratio(same_runtime, latency)
    own_reference = (method, "reference")
    weight_bytes = weight_bytes_per_chunk(experiment.policy.model, schedule, bytes_per_weight)
    # in normalised units, in which the trained action range is [-1, 1]
    difference = (
        ((actions[key] - actions[own_reference]) * experiment.policy.normalizer["action"].scale).abs().max().item()
        if own_reference in actions
        else None
    )
    computed = flops if runtime == "reference" else hoisted_cost(experiment.policy.model).flops(schedule)
    arithmetic_ms, weights_ms = batch * computed / floors.gflops / 1e6, weight_bytes / floors.weights_gb_per_s / 1e6
    return {
        "method": label,
        "sampler": sampler,
        "runtime": runtime,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "device": experiment.device.type,
        **latency.to_dict(),
        "gflop_per_chunk": round(flops / 1e9, 4),
        "speedup": round(speedup, 3),
        "speedup_same_runtime": round(speedup_same_runtime, 3),
        "max_action_diff": difference,
        "speedup_vs_same_method_reference": round(speed_ratio(latencies[own_reference], latency), 3)
        if own_reference in latencies
        else None,
        "flop_ratio_bound": round(bound, 3),
        "share_of_flop_bound": round(speedup_same_runtime / bound, 3),
        "computed_gflop_per_chunk": round(computed / 1e9, 4),
        "ms_arithmetic_floor": round(arithmetic_ms, 3),
        "ms_weights_floor": round(weights_ms, 3),
        "share_of_arithmetic_floor": round(arithmetic_ms / latency.p50, 3),
        "share_of_weights_floor": round(weights_ms / latency.p50, 3),
        "breakdown_ms": parts,
    }
