"""Wall-clock of several samplers of one policy, measured in one interleaved run, and of the parts of a chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.acting_encoder import acting_with, fast_encoder
from diffusion_policy.policy.diffusion_sampler import Sampler


@dataclass(frozen=True)
class Latency:
    """Times of one `predict_action` call at one batch size, in the order measured.

    Attributes:
        milliseconds: of the whole call.
        encoder_milliseconds: of it, checking, normalising and encoding the observation: no cache touches that.
        batch: number of observations of a call.
        n_action_steps: actions of a chunk that are executed.
    """

    milliseconds: tuple[float, ...]
    encoder_milliseconds: tuple[float, ...]
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
            "ms_p50": round(self.p50, 3),
            "ms_p95": round(self.percentile(95), 3),
            "ms_iqr": round(self.percentile(75) - self.percentile(25), 3),
            "chunks_per_s": round(self.chunks_per_s, 3),
            "action_hz": round(self.action_hz, 3),
            "n": len(self.milliseconds),
            "encoder_ms_p50": round(float(np.median(self.encoder_milliseconds)), 3),
            "denoiser_ms_p50": round(float(np.median(np.subtract(self.milliseconds, self.encoder_milliseconds))), 3),
        }


def speed_ratio(slow: Latency, fast: Latency) -> float:
    """How many times faster: the median over rounds of the ratio within a round.

    So a machine that slows down or speeds up cancels out.
    """
    return float(np.median(np.asarray(slow.milliseconds) / np.asarray(fast.milliseconds)))


def levers(plain: Latency, all_tokens: Latency, full: Latency, method: Latency) -> dict[str, float]:
    """Why `method` is faster than `plain`: factors whose product is the speed-up, up to rounding.

    Args:
        plain: the plain policy.
        all_tokens: the full policy in the method's runtime, denoising all tokens.
        full: the same with the method's tokens.

    Returns:
        `tokens` and `steps_and_schedule` as `speed_ratio` gives them; `runtime` is what is left of the speed-up. It is
        the ratio of `plain` to `all_tokens`, but for medians of ratios not multiplying exactly.
    """
    tokens, steps_and_schedule = speed_ratio(all_tokens, full), speed_ratio(full, method)
    runtime = speed_ratio(plain, method) / (tokens * steps_and_schedule)
    named = {"runtime": runtime, "tokens": tokens, "steps_and_schedule": steps_and_schedule}
    return {name: round(factor, 4) for name, factor in named.items()}


@torch.no_grad()
def interleaved(
    policy: Any,
    samplers: Mapping[str, Sampler],
    batch: int,
    rounds: int,
    warmup: int = 2,
    progress: Callable[[], None] | None = None,
) -> tuple[dict[str, Latency], dict[str, Tensor]]:
    """Times every sampler once per round, with the encoder that goes with it: A B C A B C ...

    Observations are drawn within the limits seen in training; all samplers get the same observations and noise.

    Returns:
        Latencies and, of the last round, the action predictions [B, T, Da] by name; T counts what a sampler denoises.
    """
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in samplers}
    actions: dict[str, Tensor] = {}
    encoders = {name: fast_encoder(policy, sampler)[0] for name, sampler in samplers.items()}

    def now() -> float:
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        return time.perf_counter()

    for index in range(-warmup, rounds):
        obs = policy.random_observation(batch, generator)
        for name, sampler in samplers.items():
            noise = torch.Generator().manual_seed(index + warmup)
            # predict_action in its parts
            with acting_with(policy, encoders[name]):
                started = now()
                inputs = policy.sampler_inputs(obs)
                encoded = now()
            actions[name] = policy.decode(sampler(inputs, noise))["action_pred"]
            ended = now()
            if index >= 0:
                times[name].append(((ended - started) * 1e3, (encoded - started) * 1e3))
            if progress is not None:
                progress()
    latencies = {
        name: Latency(*zip(*values), batch=batch, n_action_steps=policy.n_action_steps)
        for name, values in times.items()
    }
    return latencies, actions
