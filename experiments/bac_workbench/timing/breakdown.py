"""Where the time of one action chunk goes: observation encoder, conditioning, denoiser, scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bac.runtime.choose import AcceleratedSampler
from bac.runtime.planned import PlannedSampler


def breakdown(
    policy: Any, sampler: AcceleratedSampler, batch: int, total_ms: float, repeats: int = 5
) -> dict[str, float]:
    """Milliseconds per chunk of each part, each timed alone; the denoiser is what remains of `total_ms`.

    `scheduler` includes drawing the noise. In the compiled runtime the scheduler's arithmetic is fused into the
    denoiser and only the noise is counted here.

    Args:
        batch: number of observations of a chunk.
        total_ms: of a whole chunk, from an interleaved run.
        repeats: of which the median is taken.
    """
    model, device = policy.model, policy.device
    generator = torch.Generator().manual_seed(0)
    obs = policy.random_observation(batch, generator)
    condition, _, cond = policy.sampler_inputs(obs)
    output = torch.zeros_like(condition)
    parts = {"observation_encoder": _time(lambda: policy.encode_observation(obs), device, repeats)}
    if isinstance(sampler, PlannedSampler):
        hoist = getattr(sampler, "fold_memory", sampler.hoist_observation)
        parts["conditioning"] = _time(lambda: hoist(cond, batch), device, repeats)
        parts["scheduler"] = _time(lambda: sampler.draw(condition, generator), device, repeats)
        if sampler.name == "planned":
            noise = sampler.draw(condition, generator)[1]

            def solve() -> None:
                last = None
                for step in range(sampler.solver.steps):
                    _, last = sampler.solve(step, condition, output, last, noise[step])

            parts["scheduler"] += _time(solve, device, repeats)
    else:
        base = sampler.base
        timesteps = base.prepared(device).timesteps

        def encode() -> None:
            for timestep in timesteps:
                if not model.encoder_only:
                    model.encode_condition(model.embed_time(timestep, batch, device), cond)

        def schedule() -> None:
            scheduler = base.prepared(device)
            trajectory = base.begin(scheduler, condition, generator)
            for timestep in scheduler.timesteps:
                trajectory = base.step(scheduler, output, timestep, trajectory, generator)

        parts["conditioning"] = _time(encode, device, repeats)
        parts["scheduler"] = _time(schedule, device, repeats)
    parts["denoiser"] = max(0.0, total_ms - sum(parts.values()))
    return {name: round(value, 3) for name, value in parts.items()}


def _time(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds of one call, after one to warm up."""
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append((time.perf_counter() - started) * 1e3)
    return sorted(times[1:])[repeats // 2]
