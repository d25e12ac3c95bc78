"""The `reference` runtime: reads like the paper, module by module. Every other runtime is tested against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bac.denoiser import branch, model_blocks
from bac.runtime.snapshot import check_containers
from bac.schedule import Schedule
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators

# Called as observe(step, block, feature [B, T, D]) with every branch output that is computed.
Observer = Callable[[int, str, Tensor], None]


class ReferenceSampler:
    """Block-wise caching around the policy's own denoising loop (paper, section 3.1).

    At an update step a block computes x <- x + F(norm(x)) and stores F(norm(x)); at every other step it adds what is
    stored: x <- x + cache[block].
    """

    name = "reference"

    def __init__(self, base: DiffusionSampler, schedule: Schedule, observe: Observer | None = None):
        self.base, self.model, self.schedule, self.observe = base, base.model, schedule, observe
        self.blocks = model_blocks(base.model)
        check_containers(base.model)
        schedule.check_fits(self.blocks, base.num_inference_steps)
        self.block_updates: Counter[str] = Counter()  # how often each block has computed, over all chunks
        self.chunks = 0

    def denoise(
        self,
        trajectory: Tensor,
        timestep: Tensor,
        cond: Tensor | None,
        step: int,
        updates: np.ndarray,
        cache: dict[str, Tensor],
    ) -> Tensor:
        """One call of the denoiser at step k; `updates` [blocks] says which blocks compute."""
        model = self.model
        time_token = model.embed_time(timestep, trajectory.shape[0], trajectory.device)
        x = model.embed_trajectory(trajectory, time_token)
        memory = None if model.encoder_only else model.encode_condition(time_token, cond)
        masks = model.masks(x.shape[1], 0 if memory is None else memory.shape[1])
        for block, update in zip(self.blocks, updates):
            if update:
                cache[block] = branch(model, block, *masks)(x, memory)
                self.block_updates[block] += 1
                if self.observe is not None:
                    self.observe(step, block, cache[block])
            x = x + cache[block]
        return model.read_out(x)

    @torch.no_grad()
    def __call__(
        self, condition: Tensor, given: Tensor | None, cond: Tensor | None, generator: Generators = None
    ) -> Tensor:
        """See `DiffusionSampler.__call__`: same arguments, same noise."""
        if len(condition) == 0:
            raise ValueError("the batch is empty: give at least one sample")
        scheduler = self.base.prepared(condition.device)
        trajectory = self.base.begin(scheduler, condition, generator)
        timesteps = scheduler.timesteps
        if len(timesteps) != self.schedule.steps:
            raise ValueError(f"the scheduler takes {len(timesteps)} steps, the schedule has {self.schedule.steps}")
        cache: dict[str, Tensor] = {}
        for step, timestep in enumerate(timesteps):
            if given is not None:
                trajectory = torch.where(given, condition, trajectory)
            scaled = scheduler.scale_model_input(trajectory, timestep)
            prediction = self.denoise(scaled, timestep, cond, step, self.schedule.updates[step], cache)
            trajectory = self.base.step(scheduler, prediction, timestep, trajectory, generator)
        self.chunks += 1
        return trajectory if given is None else torch.where(given, condition, trajectory)
