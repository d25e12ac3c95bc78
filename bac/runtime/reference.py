"""The `reference` runtime: reads like the paper, module by module. Every other runtime is tested against it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bac.denoiser import branch, model_blocks
from bac.horizon import check_tokens
from bac.known_modules import check_containers
from bac.loop import DenoisingLoop, Generators, SamplerInputs, check_inputs
from bac.plan import check_reuse
from bac.runtime.contract import TimedParts
from bac.schedule import Schedule
from bac.solver import Solver, UnsupportedSolver, solver_of

# Called as observe(step, block, feature [B, T, D]) with every branch output that is computed.
Observer = Callable[[int, str, Tensor], None]


#: a block's last two outputs and the steps of their updates, the latest at the end
_Stored = list[tuple[int, Tensor]]


def _reused(stored: _Stored, step: int, reuse: str) -> Tensor:
    """What a block adds at a step where it does not update, [B, T, D]."""
    last, output = stored[-1]
    if reuse == "hold" or len(stored) == 1:
        return output
    earlier, before = stored[0]
    return output + (step - last) / (last - earlier) * (output - before)


def _solver_if_known(base: DenoisingLoop) -> Solver | None:
    with contextlib.suppress(UnsupportedSolver):
        return solver_of(base)
    return None


class ReferenceSampler:
    """Block-wise caching around the policy's own denoising loop (paper, section 3.1).

    At an update step a block computes x <- x + F(norm(x)) and stores F(norm(x)); at every other step it adds what is
    stored: x <- x + cache[block]. A schedule may ask to extrapolate it from the last two (see `Schedule.reuse`).

    With `tokens` the denoiser sees the first of them only and the sampler's step all T, whose later ones nobody reads:
    so noise is drawn as ever. The actions are those of all tokens to rounding (1e-6), as with another batch size:
    PyTorch's matrix products sum in an order that depends on the number of rows.
    """

    name = "reference"
    bytes_per_weight = 4  # it computes with the policy's own fp32 weights
    prepare_seconds = 0.0  # it prepares nothing

    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None = None,
        observe: Observer | None = None,
        tokens: int | None = None,
    ):
        self.base, self.model, self.observe, self.tokens = base, base.model, observe, tokens
        self.blocks = model_blocks(base.model)
        self.schedule = Schedule.full(self.blocks, base.num_inference_steps) if schedule is None else schedule
        check_containers(base.model)
        check_tokens(base, tokens)
        self.schedule.check_fits(self.blocks, base.num_inference_steps)
        check_reuse(self.schedule, None if self.schedule.reuse == "hold" else _solver_if_known(base))
        self.block_updates: Counter[str] = Counter()
        self.chunks = 0

    def denoise(
        self,
        trajectory: Tensor,
        timestep: Tensor,
        observation: Tensor | None,
        step: int,
        updates: np.ndarray,
        cache: dict[str, _Stored],
    ) -> Tensor:
        """One call of the denoiser at step k; `updates` [blocks] says which blocks compute."""
        model = self.model
        time_token = model.embed_time(timestep, trajectory.shape[0], trajectory.device)
        x = model.embed_trajectory(trajectory, time_token)
        memory = None if model.encoder_only else model.encode_condition(time_token, observation)
        masks = model.masks(x.shape[1], 0 if memory is None else memory.shape[1])
        for block, update in zip(self.blocks, updates):
            if update:
                out = branch(model, block, *masks)(x, memory)
                cache[block] = [*cache.get(block, [])[-1:], (step, out)]
                self.block_updates[block] += 1
                if self.observe is not None:
                    self.observe(step, block, out)
            else:
                out = _reused(cache[block], step, self.schedule.reuse)
            x = x + out
        return model.read_out(x)

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """See `Runtime.__call__`."""
        check_inputs(inputs, self.model)
        check_tokens(self.base, self.tokens)  # nothing else notices a mask that was changed
        scheduler = self.base.prepared(inputs.known.device)
        trajectory = self.base.begin(scheduler, inputs.known, generator)
        timesteps = scheduler.timesteps
        if len(timesteps) != self.schedule.steps:
            raise ValueError(f"the scheduler takes {len(timesteps)} steps, the schedule has {self.schedule.steps}")
        cache: dict[str, _Stored] = {}
        for step, timestep in enumerate(timesteps):
            trajectory = inputs.impose(trajectory)
            scaled = scheduler.scale_model_input(trajectory, timestep)[:, : self.tokens]
            updates = self.schedule.updates[step]
            prediction = self.denoise(scaled, timestep, inputs.observation, step, updates, cache)
            left_out = trajectory.shape[1] - prediction.shape[1]
            prediction = F.pad(prediction, (0, 0, 0, left_out))  # zeros for the tokens nobody reads
            trajectory = self.base.step(scheduler, prediction, timestep, trajectory, generator)
        self.chunks += 1
        return inputs.impose(trajectory)[:, : self.tokens]

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """See `Runtime.timed_parts`."""
        model, base, known = self.model, self.base, inputs.known
        output = torch.zeros_like(known)
        timesteps = base.prepared(known.device).timesteps

        def encode() -> None:
            for timestep in timesteps:
                if not model.encoder_only:
                    time_token = model.embed_time(timestep, len(known), known.device)
                    model.encode_condition(time_token, inputs.observation)

        def schedule() -> None:
            scheduler = base.prepared(known.device)
            trajectory = base.begin(scheduler, known, generator)
            for timestep in scheduler.timesteps:
                trajectory = base.step(scheduler, output, timestep, trajectory, generator)

        return {"conditioning": encode, "scheduler": schedule}
