"""Wall-clock of several samplers of one policy, measured in one interleaved run, and of the parts of a chunk."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.policy.diffusion_sampler import Sampler


@dataclass(frozen=True)
class Latency:
    """Times of one `predict_action` call at one batch size, in milliseconds, in the order measured."""

    milliseconds: tuple[float, ...]
    batch: int
    n_action_steps: int

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.milliseconds, q))

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def chunks_per_s(self) -> float:
        """Action chunks per second, all samples of the batch counted."""
        return 1e3 * self.batch / self.p50

    @property
    def action_hz(self) -> float:
        """Action frames per second, as in the paper: n_action_steps per chunk."""
        return self.chunks_per_s * self.n_action_steps

    def to_dict(self) -> dict[str, float]:
        return {
            "ms_p50": round(self.p50, 3), "ms_p95": round(self.percentile(95), 3),
            "ms_iqr": round(self.percentile(75) - self.percentile(25), 3), "chunks_per_s": round(self.chunks_per_s, 3),
            "action_hz": round(self.action_hz, 3), "n": len(self.milliseconds),
        }


def speed_ratio(slow: Latency, fast: Latency) -> float:
    """How many times faster: the median over rounds of the ratio within a round, so that a drifting machine cancels out."""
    return float(np.median(np.asarray(slow.milliseconds) / np.asarray(fast.milliseconds)))


def interleaved(
    policy: Any, samplers: Mapping[str, Sampler], batch: int, rounds: int, warmup: int = 2,
    progress: Callable[[], None] | None = None,
) -> tuple[dict[str, Latency], dict[str, Tensor]]:
    """Times every sampler once per round: A B C A B C ...

    Observations are drawn within the limits seen in training; all samplers get the same observations and noise.

    Returns:
        Latencies and, of the last round, the action predictions [B, T, Da] by name.
    """
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {name: [] for name in samplers}
    actions: dict[str, Tensor] = {}
    own = policy.sampler
    try:
        for index in range(-warmup, rounds):
            obs = policy.random_observation(batch, generator)
            for name, sampler in samplers.items():
                policy.sampler = sampler
                noise = torch.Generator().manual_seed(index + warmup)
                if policy.device.type == "cuda":
                    torch.cuda.synchronize(policy.device)
                started = time.perf_counter()
                actions[name] = policy.predict_action(obs, noise)["action_pred"]
                if policy.device.type == "cuda":
                    torch.cuda.synchronize(policy.device)
                if index >= 0:
                    times[name].append((time.perf_counter() - started) * 1e3)
                if progress is not None:
                    progress()
    finally:
        policy.sampler = own
    return {name: Latency(tuple(values), batch, policy.n_action_steps) for name, values in times.items()}, actions


@torch.no_grad()
def encoder_and_denoiser(policy: Any, batch: int, rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median milliseconds per chunk of the two parts of `predict_action`, with the sampler attached now.

    `encoder_ms`: checking, normalising and encoding the observation, which no cache touches; `denoiser_ms`: the sampler.
    """
    generator = torch.Generator().manual_seed(0)
    times: list[tuple[float, float]] = []

    def now() -> float:
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        return time.perf_counter()

    for _ in range(warmup + rounds):
        obs = policy.random_observation(batch, generator)
        started = now()
        inputs = policy.sampler_inputs(obs)
        encoded = now()
        policy.sampler(*inputs, generator)
        times.append(((encoded - started) * 1e3, (now() - encoded) * 1e3))
    encoder, denoiser = np.median(times[warmup:], axis=0)
    return {"encoder_ms": round(float(encoder), 3), "denoiser_ms": round(float(denoiser), 3)}
