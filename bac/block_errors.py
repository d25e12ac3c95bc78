"""Errors of block outputs under caching, against the uncached chain with the same noise.

BAC's paper calls it an error surge when the errors of a block's outputs grow along the chain because FFNs refresh on
stale inputs (arXiv 2506.13456). The error of block b at step k is the mean over its [T, D] outputs of

    |f'_b(k) - f_b(k)|,

with f_b(k) the output in the uncached chain and f'_b(k) what is added to the residual stream in the cached one: the
block's new output at an update step, the held one at every other step. Both chains start from the same noise and draw
the same, so that a cached chain is exact until its first reuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bac.denoiser import model_blocks
from bac.loop import DenoisingLoop, SamplerInputs
from bac.profiling import generators_of
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule, ScheduleError


@dataclass(frozen=True)
class BlockErrors:
    """Means over observations and noise seeds.

    Attributes:
        blocks: names in execution order.
        sizes: float64 [K, blocks], mean absolute output of each block in the uncached chain.
        errors: by schedule, float64 [K, blocks], in the unit of `sizes`.
        action_errors: by schedule, mean absolute difference of the executed actions, in normalised units.
    """

    blocks: tuple[str, ...]
    sizes: np.ndarray
    errors: dict[str, np.ndarray]
    action_errors: dict[str, float]


@torch.no_grad()
def block_errors(
    base: DenoisingLoop,
    schedules: Mapping[str, Schedule],
    inputs: SamplerInputs,
    noise_seeds: Sequence[int],
    chunk: slice,
    action_dim: int | None = None,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> BlockErrors:
    """Runs the uncached chain and each cached one on N observations and every noise seed.

    Args:
        base: the policy's own denoising loop.
        schedules: by any name.
        inputs: of N observations, as `policy.sampler_inputs` makes them.
        chunk: the tokens that are executed (`policy.chunk`).
        action_dim: numbers of a token that are the action; None: all.
        progress: called with (done, total) observation-seed pairs.

    Raises:
        ScheduleError: a schedule is not of this model and loop, or does not hold outputs.
        ValueError: there is nothing to measure on.
    """
    blocks = model_blocks(base.model)
    for name, schedule in schedules.items():
        if schedule.reuse != "hold":
            raise ScheduleError(f"errors are measured of held outputs, and {name} has {schedule.reuse}d ones")
    if not len(inputs) or not noise_seeds:
        raise ValueError("errors need one observation and one noise seed at least")
    steps = base.num_inference_steps
    sizes, done, total = np.zeros((steps, len(blocks))), 0, len(inputs) * len(noise_seeds)
    errors = {name: np.zeros((steps, len(blocks))) for name in schedules}
    moved = dict.fromkeys(schedules, 0.0)
    for seed in noise_seeds:
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            full = _Outputs(blocks, steps)
            exact = ReferenceSampler(base, observe=full.observe)(batch, generators_of(seed, start, len(batch)))
            sizes += full.sizes()
            for name, schedule in schedules.items():
                cached = _Outputs(blocks, steps)
                sampler = ReferenceSampler(base, schedule, observe=cached.observe)
                got = sampler(batch, generators_of(seed, start, len(batch)))
                errors[name] += cached.sizes(full)
                difference = (got - exact)[:, chunk, :action_dim].abs()
                moved[name] += float(difference.mean(dim=(1, 2)).double().sum())
            done += len(batch)
            if progress is not None:
                progress(done, total)
    means = {name: sums / total for name, sums in errors.items()}
    return BlockErrors(blocks, sizes / total, means, {name: value / total for name, value in moved.items()})


class _Outputs:
    """What the blocks computed in one chain, [B, T, D] each, and what was added where they did not."""

    def __init__(self, blocks: tuple[str, ...], steps: int):
        self.blocks, self.steps = blocks, steps
        self.computed: dict[str, dict[int, Tensor]] = {block: {} for block in blocks}

    def observe(self, step: int, block: str, feature: Tensor) -> None:
        self.computed[block][step] = feature

    def at(self, step: int, block: str) -> Tensor:
        """The output of the block's last update up to this step."""
        computed = self.computed[block]
        return computed[max(update for update in computed if update <= step)]

    def sizes(self, less: _Outputs | None = None) -> np.ndarray:
        """[K, blocks]: mean over [T, D] of |output|, or of |output - another chain's|, summed over the batch."""
        rows = []
        for step in range(self.steps):
            outputs = [self.at(step, block) for block in self.blocks]
            if less is not None:
                outputs = [output - less.at(step, block) for output, block in zip(outputs, self.blocks)]
            rows.append(torch.stack([output.abs().mean(dim=(1, 2)).double().sum() for output in outputs]))
        return torch.stack(rows).cpu().numpy()
