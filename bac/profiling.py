"""Profiling: how alike each block's features are at every pair of denoising steps.

The similarities are means over many observations and noise seeds (paper, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bac.denoiser import model_blocks
from bac.loop import DenoisingLoop, SamplerInputs
from bac.profile import Profile, ProfileError, ProfileInfo
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule
from bac.similarity import METRICS, from_sums

__all__ = ["FeatureSimilarity", "Profile", "ProfileError", "ProfileInfo", "profile_features"]


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
