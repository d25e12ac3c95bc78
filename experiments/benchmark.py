"""How fast every method is in every runtime, in one interleaved run."""
from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from bac.denoiser import model_blocks
from bac.flops import denoiser_cost, hoisted_cost
from bac.native import build
from bac.runtime.choose import AcceleratedSampler, make_sampler
from bac.schedule import Schedule
from diffusion_policy.common.config import ConfigError
from experiments.breakdown import breakdown
from experiments.floors import Floors, measure_floors, weight_bytes_per_chunk
from experiments.latency import Latency, interleaved, speed_ratio
from experiments.provenance import ROOT, environment
from experiments.schedules import METHODS, schedule_for
from experiments.setup import Experiment, base_sampler

REFERENCE = ("full@ddpm100", "reference")


@dataclass(frozen=True)
class Method:
    """A cache with its budget, on a sampler; written bac_s10@ddpm100."""

    cache: DictConfig
    sampler: DictConfig
    label: str

    @property
    def name(self) -> str:
        return f"{self.label}@{self.sampler.name}"


def parse_method(text: str) -> Method:
    """'bac_s7@ddim16' -> Method; budget and sampler may be left out. Other settings are those of config/cache/<cache>.yaml."""
    label, _, sampler_name = str(text).partition("@")
    cache_name, _, budget = label.partition("_s") if "_s" in label else (label, "", "")
    cache_file = ROOT / "config" / "cache" / f"{cache_name}.yaml"
    sampler_file = ROOT / "config" / "sampler" / f"{sampler_name or 'ddpm100'}.yaml"
    if cache_name not in METHODS or not cache_file.exists() or (budget and not budget.isdigit()):
        raise ConfigError(f"method {text!r} is not known: write <cache>[_s<budget>][@<sampler>] with cache one of {', '.join(METHODS)}")
    if not sampler_file.exists():
        known = ", ".join(sorted(path.stem for path in sampler_file.parent.glob("*.yaml")))
        raise ConfigError(f"method {text!r} names an unknown sampler: use one of {known}")
    cache, sampler = OmegaConf.load(cache_file), OmegaConf.load(sampler_file)
    if budget:
        cache.budget = int(budget)
    return Method(cache, sampler, label if budget or cache.method == "full" else f"{label}_s{cache.budget}")


def run_benchmark(experiment: Experiment, say=print, progress=None) -> dict[str, Any]:
    """Measures and returns {'rows': [...], 'floors': {...}, 'provenance': {...}}."""
    cfg, policy = experiment.cfg, experiment.policy
    samplers, schedules, prepared = prepare(experiment, say)
    if REFERENCE not in samplers:
        raise ConfigError("methods must include full and runtimes must include reference: everything is compared with them")
    block_bytes = sum(p.numel() for p in policy.model.trunk.parameters()) * 4
    floors = measure_floors(experiment.device, block_bytes // 2)
    batches = [int(b) for b in (cfg.batch if OmegaConf.is_list(cfg.batch) else [cfg.batch])]
    rows: list[dict[str, Any]] = []
    for batch in batches:
        latencies, actions = interleaved(policy, samplers, batch, int(cfg.n_chunks), int(cfg.warmup), progress)
        shares = {key: breakdown(policy, sampler, batch, latencies[key].p50) for key, sampler in samplers.items()}
        for key in samplers:
            bytes_per_weight = getattr(samplers[key], "bytes_per_weight", 4)  # the reference reads fp32
            rows.append(make_row(experiment, key, batch, schedules[key[0]], latencies, actions, shares[key], floors, bytes_per_weight))
    return {
        "rows": rows,
        "floors": {**floors.__dict__, "note": "fp32 matrix product, reading as many bytes as the packed weights, reading 256 MiB; best of 7"},
        "preparation_s": {f"{method} {runtime}": round(seconds, 3) for (method, runtime), seconds in prepared.items()},
        "compilation_s": round(build.build_seconds, 2),
        "provenance": {
            "task": cfg.task.name, "checkpoint": str(experiment.loaded.source), "checkpoint_hash": experiment.loaded.hash,
            "weights": experiment.loaded.weights, "precision": cfg.precision, "rounds": int(cfg.n_chunks),
            **environment(experiment.device, torch.get_num_threads()),
        },
    }


def prepare(
    experiment: Experiment, say
) -> tuple[dict[tuple[str, str], AcceleratedSampler], dict[str, Schedule], dict[tuple[str, str], float]]:
    """Samplers by (method, runtime), the schedule of each method, and the seconds it took to make each sampler."""
    cfg, policy = experiment.cfg, experiment.policy
    blocks = model_blocks(policy.model)
    samplers: dict[tuple[str, str], AcceleratedSampler] = {}
    schedules: dict[str, Schedule] = {}
    seconds: dict[tuple[str, str], float] = {}
    for text in cfg.methods:
        method = parse_method(text)
        policy.sampler = base_sampler(policy, method.sampler.type, int(method.sampler.steps))
        with open_dict(cfg):
            cfg.sampler = method.sampler
        schedule = schedule_for(experiment, method.cache, say)
        schedules[method.name] = schedule or Schedule.full(blocks, policy.sampler.num_inference_steps)
        for runtime in cfg.runtimes:
            precision = "fp32" if runtime == "reference" else cfg.precision
            started = time.perf_counter()
            samplers[method.name, runtime] = make_sampler(policy.sampler, schedule, runtime, precision)
            seconds[method.name, runtime] = time.perf_counter() - started
    return samplers, schedules, seconds


def make_row(
    experiment: Experiment, key: tuple[str, str], batch: int, schedule: Schedule, latencies: dict[Any, Latency],
    actions: dict[Any, torch.Tensor], parts: dict[str, float], floors: Floors, bytes_per_weight: int,
) -> dict[str, Any]:
    """One line of benchmark.json."""
    method, runtime = key
    label, _, sampler = method.partition("@")
    latency, reference = latencies[key], latencies[REFERENCE]
    cost = denoiser_cost(experiment.policy.model)
    full = Schedule.full(schedule.blocks, experiment.policy.noise_scheduler.config.num_train_timesteps)
    flops, bound = cost.flops(schedule), cost.flops(full) / cost.flops(schedule)
    speedup = speed_ratio(reference, latency)
    own_reference = (method, "reference")
    weight_bytes = weight_bytes_per_chunk(experiment.policy.model, schedule, bytes_per_weight)
    # in normalised units, in which the trained action range is [-1, 1]
    difference = ((actions[key] - actions[own_reference]) * experiment.policy.normalizer["action"].scale).abs().max().item() \
        if own_reference in actions else None
    computed = flops if runtime == "reference" else hoisted_cost(experiment.policy.model).flops(schedule)
    arithmetic_ms, weights_ms = batch * computed / floors.gflops / 1e6, weight_bytes / floors.weights_gb_per_s / 1e6
    return {
        "method": label, "sampler": sampler, "runtime": runtime, "batch": batch, "threads": torch.get_num_threads(),
        "device": experiment.device.type, **latency.to_dict(),
        "gflop_per_chunk": round(flops / 1e9, 4), "speedup_vs_full_reference": round(speedup, 3),
        "max_action_diff": difference,
        "speedup_vs_same_method_reference": round(speed_ratio(latencies[own_reference], latency), 3) if own_reference in latencies else None,
        "flop_ratio_bound": round(bound, 3), "share_of_flop_bound": round(speedup / bound, 3),
        "computed_gflop_per_chunk": round(computed / 1e9, 4),
        "ms_arithmetic_floor": round(arithmetic_ms, 3), "ms_weights_floor": round(weights_ms, 3),
        "share_of_arithmetic_floor": round(arithmetic_ms / latency.p50, 3), "share_of_weights_floor": round(weights_ms / latency.p50, 3),
        "breakdown_ms": parts,
    }
