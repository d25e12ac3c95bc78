"""Profiling: how alike each block's features are at every pair of denoising steps.

The similarities are means over many observations and noise seeds (paper, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.denoiser import model_blocks
from bac.loop import DenoisingLoop, SamplerInputs
from bac.original import adopt
from bac.profile_matrices import Profile, ProfileError, ProfileInfo
from bac.runtime.reference import ReferenceSampler
from bac.sampler_name import loop_name
from bac.schedule import Schedule
from bac.similarity import METRICS, from_sums

__all__ = ["FeatureSimilarity", "Profile", "ProfileError", "ProfileInfo", "profile", "profile_features"]


class FeatureSimilarity:
    """Accumulates the matrices; memory is that of one batch's features and does not grow with the number of batches."""

    def __init__(self, blocks: tuple[str, ...], steps: int):
        self.blocks, self.steps = blocks, steps
        self.totals = {metric: {block: np.zeros((steps, steps)) for block in blocks} for metric in METRICS}
        self.samples = 0
        self.features: dict[str, list[Tensor]] = {}

    def observe(self, step: int, block: str, feature: Tensor) -> None:
        """One block's output [B, T, D] at one step, given in step order."""
        self.features.setdefault(block, []).append(feature)

    def finish_batch(self) -> None:
        """Adds the batch observed since the last call.

        Raises:
            ValueError: features are not finite.
        """
        batch = 0
        for block in self.blocks:
            features = torch.stack(self.features.pop(block), dim=1).flatten(2)  # [B, K, T D]
            batch, _, n = features.shape
            if not torch.isfinite(features).all():
                raise ValueError(
                    f"the features of {block} contain NaN or infinite values; check the policy's inputs and weights"
                )
            gram = torch.matmul(features.double(), features.double().transpose(1, 2)).cpu().numpy()
            distance = torch.cdist(features, features, p=1).double().cpu().numpy()
            for metric in METRICS:
                values = from_sums(metric, n, abs_sum=distance) if metric == "l1" else from_sums(metric, n, gram=gram)
                self.totals[metric][block] += values.sum(0)
        self.samples += batch

    def matrices(self) -> dict[str, dict[str, np.ndarray]]:
        return {m: {b: total / self.samples for b, total in blocks.items()} for m, blocks in self.totals.items()}


def generators_of(seed: int, start: int, count: int) -> list[torch.Generator]:
    """The noise of observations start ... start + count - 1 with a noise seed: the same whatever the batch."""
    return [torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(count)]


@torch.no_grad()
def profile_features(
    base: DenoisingLoop,
    inputs: SamplerInputs,
    noise_seeds: Sequence[int],
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Runs the full policy on N observations and every noise seed and compares features between steps.

    Args:
        base: the policy's own denoising loop.
        inputs: of N observations, as `policy.sampler_inputs` makes them.
        progress: called with (done, total) observation-seed pairs.

    Returns:
        metric -> block -> matrix [K, K]: how alike the block's features are at each pair of denoising steps.
    """
    blocks = model_blocks(base.model)
    schedule = Schedule.full(blocks, base.num_inference_steps)
    similarity = FeatureSimilarity(blocks, schedule.steps)
    sampler = ReferenceSampler(base, schedule, observe=similarity.observe)
    total, done = len(inputs) * len(noise_seeds), 0
    for seed in noise_seeds:
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            sampler(batch, generators_of(seed, start, len(batch)))
            similarity.finish_batch()
            done += len(batch)
            if progress is not None:
                progress(done, total)
    return similarity.matrices()


def profile(
    policy: Any,
    observations: Mapping[str, Any] | Any,
    noise_seeds: Sequence[int] = (0, 1),
    batch_size: int = 4,
    weights: str = "ema",
    source: str = "recorded observations",
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """The profile of a policy on recorded observations: what `bac.acs` and `bac.bua` make schedules from.

        found = bac.profile(policy, {"image": images, "agent_pos": positions})
        schedule = bua.bac(
            found.matrices["cosine"], found.matrices["l1"], budget=10, provenance=found.info.provenance()
        )

    Args:
        policy: not accelerated; its own sampler is what is profiled. Also one of the original project's own classes.
        observations: arrays or tensors [N, To, ...] by name, in the environment's units, images uint8 or in [0, 1];
            an array alone stands for {"obs": array}. Take N of them, 32 or more, spread over several episodes.
        noise_seeds: every observation is denoised once with each.
        batch_size: observations that are denoised together.
        weights: `ema` or `raw`, which of a checkpoint's weights these are; it is only written down.
        source: where the observations come from, in words; it is only written down.
        progress: called with (done, total) pairs of observation and seed.

    Raises:
        ProfileError: the policy is accelerated, or there are no observations or seeds.
        ValueError: the observations are not what the policy sees.
    """
    policy = adopt(policy)
    own = policy.sampler
    if not isinstance(own, DenoisingLoop):
        raise ProfileError("the policy is accelerated: leave the `with accelerate(...)` block, and profile it there")
    named = observations if isinstance(observations, Mapping) else {"obs": observations}
    with torch.no_grad():
        inputs = policy.sampler_inputs({name: torch.as_tensor(values) for name, values in named.items()})
    info = ProfileInfo(
        checkpoint_hash=policy.weights_hash(),
        weights=weights,
        sampler=loop_name(own, policy.noise_scheduler),
        steps=own.num_inference_steps,
        observations=len(inputs),
        noise_seeds=tuple(noise_seeds),
        source=source,
    )
    return Profile(info, profile_features(own, inputs, info.noise_seeds, batch_size, progress))
