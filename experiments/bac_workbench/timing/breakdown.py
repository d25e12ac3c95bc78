"""Where the time of one action chunk goes: observation encoder, conditioning, denoiser, scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bac.acting_encoder import acting_with, fast_encoder
from bac.runtime.contract import Runtime


def breakdown(policy: Any, sampler: Runtime, batch: int, total_ms: float, repeats: int = 5) -> dict[str, float]:
    """Milliseconds per chunk of each part, each timed alone; the denoiser is what remains of `total_ms`.

    `scheduler` includes drawing the noise. In the compiled runtime the scheduler's arithmetic is fused into the
    denoiser and only the noise is counted here.

    Args:
        batch: number of observations of a chunk.
        total_ms: of a whole chunk, from an interleaved run.
        repeats: of which the median is taken.
    """
    generator = torch.Generator().manual_seed(0)
    obs = policy.random_observation(batch, generator)
    parts = {"observation_encoder": lambda: policy.encode_observation(obs)}
    parts.update(sampler.timed_parts(policy.sampler_inputs(obs), generator))
    with acting_with(policy, fast_encoder(policy, sampler)[0]):
        milliseconds = {name: _time(work, policy.device, repeats) for name, work in parts.items()}
    milliseconds["denoiser"] = max(0.0, total_ms - sum(milliseconds.values()))
    return {name: round(value, 3) for name, value in milliseconds.items()}


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
