"""Finds the timesteps of a few-step sampler for one checkpoint, on states that it visits.

The rules of `bac.samplers.grids` know no checkpoint. Here coordinate descent moves one timestep at a time, from large
to small strides, as long as the executed actions come nearer to the full policy's own under the same noise. The error
is the mean of each chunk's RMS error; what exceeds `bac.distances.CAP` counts a tenth. Else a few flips between modes
would decide it, or, were it cut off, a poor start would see no way down.

A smaller error makes a better candidate, not a better score: only rollouts decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.distances import capped_rms_errors, noise_of, sample_chunks
from bac.errors import UserError
from bac.horizon import executed_tokens, loop_of
from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.settings import InvalidGridSettings

#: how far a timestep moves at a time, as parts of T
STRIDES = (0.08, 0.04, 0.02, 0.01)
#: part of an error beyond the cap that counts
BEYOND = 0.1
#: a move has to lower the error by this part of it
WORTHWHILE = 0.01
#: held-out states are denoised with other noise, too
OTHER_NOISE = 1_000_000

Grid = tuple[int, ...]


class CalibrationError(UserError, ValueError):
    """A calibration that is not possible."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration found. Errors are in normalised units.

    Attributes:
        start, settings: the sampler before and after.
        error_before, error_after: on the states it was fitted to.
        held_out_before, held_out_after: on other states, with other noise.
        trace: the grids that were accepted on the way, with their errors.
        tried: number of grids.
    """

    start: GridSettings
    settings: GridSettings
    error_before: float
    error_after: float
    held_out_before: float
    held_out_after: float
    trace: tuple[tuple[Grid, float], ...]
    tried: int
    states: int
    held_out_states: int
    seeds: tuple[int, ...]

    @property
    def better(self) -> bool:
        """Whether the error also fell on states that the grid was not fitted to."""
        return self.held_out_after < self.held_out_before

    def to_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **values,
            "start": self.start.to_dict(),
            "settings": self.settings.to_dict(),
            "trace": [{"timesteps": list(grid), "error": error} for grid, error in self.trace],
            "seeds": list(self.seeds),
        }


def calibrate(
    policy: Any,
    start: GridSettings,
    inputs: SamplerInputs,
    held_out: SamplerInputs,
    seeds: Sequence[int] = (0, 1),
    runtime: str = "planned",
    batch_size: int = 32,
    progress: Callable[[Grid, float], None] | None = None,
) -> Calibration:
    """Moves the timesteps of `start` to where the executed actions are nearest to the full policy's.

    The same arguments give the same result. On one core 32 states, two seeds and five timesteps take about a minute.

    Args:
        policy: its own sampler is the full policy.
        inputs: of N visited states, as `policy.sampler_inputs` makes them.
        held_out: of other states, to check the result on.
        seeds: noise seeds; each state is denoised once with each.
        runtime: of the full policy, which is sampled once.
        progress: is told each accepted grid and its error.

    Raises:
        CalibrationError: there are no states or no seeds, or `start` has fitted scalars.
        UserError: `start` or the runtime is not possible on this policy.
    """
    if not len(inputs) or not len(held_out) or not seeds:
        raise CalibrationError("a calibration needs states, other states to check it on, and noise seeds")
    if start.scalars is not None or start.noise_weights is not None:
        raise CalibrationError("scalars and noise weights were fitted to their timesteps: calibrate without them")
    fit = GridErrors(policy, start, inputs, seeds, runtime, batch_size)
    start = fit.start
    trace = descend(fit, start.timesteps, fit.trained, progress)
    found = dataclasses.replace(start, timesteps=trace[-1][0])
    check = GridErrors(policy, start, held_out, [seed + OTHER_NOISE for seed in seeds], runtime, batch_size)
    return Calibration(
        start=start,
        settings=found,
        error_before=trace[0][1],
        error_after=trace[-1][1],
        held_out_before=check(start.timesteps),
        held_out_after=check(found.timesteps),
        trace=tuple(trace),
        tried=fit.tried,
        states=len(inputs),
        held_out_states=len(held_out),
        seeds=tuple(seeds),
    )


def descend(
    error: Callable[[Grid], float],
    start: Grid,
    trained: int,
    progress: Callable[[Grid, float], None] | None = None,
) -> list[tuple[Grid, float]]:
    """Coordinate descent over grids of timesteps 0 ... `trained` - 1; those accepted with their errors, best last."""
    trace = [(start, error(start))]
    for stride in dict.fromkeys(max(1, round(part * trained)) for part in STRIDES):
        moved = True
        while moved:
            moved = False
            for index in range(len(start)):
                for step in (stride, -stride):
                    grid, best = trace[-1]
                    candidate = (*grid[:index], grid[index] + step, *grid[index + 1 :])
                    if not all(a > b for a, b in zip((trained, *candidate), (*candidate, -1))):
                        continue
                    found = error(candidate)
                    if found < best * (1 - WORTHWHILE):
                        trace.append((candidate, found))
                        moved = True
                        if progress is not None:
                            progress(candidate, found)
    return trace


class GridErrors:
    """Errors of grids on fixed states and noise, called with their timesteps.

    The denoiser's output at a timestep depends only on the timesteps before it, so it is kept: a grid that begins as an
    earlier one did costs only what follows.

    Attributes:
        start: with everything decided that settings may leave open.
        tried: number of grids so far.
    """

    def __init__(
        self,
        policy: Any,
        start: GridSettings,
        inputs: SamplerInputs,
        seeds: Sequence[int],
        runtime: str,
        batch_size: int,
    ):
        own = loop_of(policy)
        first = GridLoop(own, start)
        self.own, self.start = first.own, first.settings
        self.trained = len(self.own.scheduler.alphas_cumprod)
        self.chunk, self.action_dim = policy.chunk, policy.action_dim
        tokens = executed_tokens(policy)
        full = make_sampler(self.own, None, runtime, tokens=tokens)
        targets = sample_chunks(full, policy, inputs, seeds, batch_size)  # [N, S, L, D]
        self.batches = [
            _Batch(self.own, inputs[rows], noise_of(seed, range(rows.start, rows.stop)), targets[rows, [i]], tokens)
            for i, seed in enumerate(seeds)
            for rows in _slices(len(inputs), batch_size)
        ]
        self.known: dict[Grid, float] = {}

    @property
    def tried(self) -> int:
        return len(self.known)

    def __call__(self, timesteps: Grid) -> float:
        """The mean error of the executed actions, as above; infinite where there is no such sampler."""
        if timesteps not in self.known:
            settings = dataclasses.replace(self.start, timesteps=timesteps)
            try:
                errors = [self._errors(batch, settings) for batch in self.batches]
                self.known[timesteps] = float(np.concatenate(errors).mean())
            except InvalidGridSettings:
                self.known[timesteps] = float("inf")
        return self.known[timesteps]

    def _errors(self, batch: _Batch, settings: GridSettings) -> np.ndarray:
        chunks = batch.sample(settings)[:, self.chunk, : self.action_dim].double().cpu().numpy()
        return capped_rms_errors(chunks[:, None], batch.targets, beyond=BEYOND)


class _Batch:
    """Some states, each with its noise and with the full policy's chunk [B, 1, L, D]."""

    def __init__(
        self,
        own: DenoisingLoop,
        inputs: SamplerInputs,
        generators: Generators,
        targets: np.ndarray,
        tokens: int | None,
    ):
        every = [True] * (len(own.scheduler.alphas_cumprod) - 1) + [False]
        drawn = own.draw(inputs.known, every, generators)
        self.inputs, self.targets = inputs.head(tokens), targets
        denoised = self.inputs.known.shape[1]
        noises = [noise[:, :denoised] for noise in (drawn[0], *drawn[1]) if noise is not None]
        self.loop: Any = _SameNoise(own, noises)
        self.predictions: dict[Grid, Tensor] = {}

    @torch.no_grad()
    def sample(self, settings: GridSettings) -> Tensor:
        """Trajectories [B, tokens, D]."""
        loop = GridLoop(self.loop, settings)
        chain = loop.prepared(self.inputs.known.device)
        trajectory = loop.begin(chain, self.inputs.known, None)
        for k, timestep in enumerate(chain.timesteps):
            trajectory = self.inputs.impose(trajectory)
            past = settings.timesteps[: k + 1]
            if past not in self.predictions:
                self.predictions[past] = loop.model(trajectory, timestep, self.inputs.observation)
            trajectory = loop.step(chain, self.predictions[past], timestep, trajectory, None)
        return self.inputs.impose(trajectory)


class _SameNoise:
    """A denoising loop that draws the noise it was given, whoever draws."""

    def __init__(self, own: DenoisingLoop, noises: list[Tensor]):
        self.own, self.noises = own, noises
        self.model, self.scheduler = own.model, own.scheduler
        self.num_inference_steps = own.num_inference_steps
        self.step_kwargs: Mapping[str, Any] = own.step_kwargs

    def draw(
        self, like: Tensor, draws: Sequence[bool], generator: Generators = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        fresh = iter(self.noises)
        return next(fresh), [next(fresh) if drawn else None for drawn in draws]


def _slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
