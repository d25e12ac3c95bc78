"""The original project's denoising loop, step by step, and what it starts from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.errors import Unavailable
from bac.loop import Generators
from bac.original.denoiser import DenoiserFace
from bac.scheduler_kinds import kind_of
from bac.solver import Solver, UnsupportedSolver, solver_from_scheduler


@dataclass(frozen=True)
class OriginalInputs:
    """See `bac.loop.SamplerInputs`."""

    known: Tensor
    mask: Tensor | None = None
    observation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, rows: slice) -> OriginalInputs:
        return OriginalInputs(self.known[rows], *(None if part is None else part[rows] for part in self._optional))

    def clone(self) -> OriginalInputs:
        return OriginalInputs(self.known.clone(), *(None if part is None else part.clone() for part in self._optional))

    @property
    def _optional(self) -> tuple[Tensor | None, Tensor | None]:
        return self.mask, self.observation

    def head(self, tokens: int | None) -> OriginalInputs:
        mask = None if self.mask is None else self.mask[:, :tokens]
        return OriginalInputs(self.known[:, :tokens], mask, self.observation)

    def impose(self, trajectory: Tensor) -> Tensor:
        return trajectory if self.mask is None else torch.where(self.mask, self.known, trajectory)


class OriginalLoop:
    """A policy's scheduler, number of steps and options as they are when it is asked: see `bac.loop.DenoisingLoop`.

    As there, the initial noise is not scaled, nor is what the model is told.
    """

    def __init__(self, policy: Any, model: DenoiserFace | Any):
        self.policy, self.model = policy, model

    @property
    def scheduler(self) -> Any:
        return self.policy.noise_scheduler

    @property
    def num_inference_steps(self) -> int:
        return self.policy.num_inference_steps

    @property
    def step_kwargs(self) -> Mapping[str, Any]:
        return dict(getattr(self.policy, "kwargs", {}))

    def prepared(self, device: torch.device | None = None) -> Any:
        """Raises:
        Unavailable: the scheduler does not take exactly K steps, or scales what the original's loop does not.
        """
        own, steps = copy.copy(self.scheduler), self.num_inference_steps
        own.set_timesteps(steps)  # on the CPU, as there; the denoiser moves what it is told
        if len(own.timesteps) != steps:
            raise Unavailable(f"{type(own).__name__} takes {len(own.timesteps)} timesteps where {steps} are set")
        if float(getattr(own, "init_noise_sigma", 1.0)) != 1.0:
            raise Unavailable(f"{type(own).__name__} scales the noise, which the original project's loop does not do")
        return own

    def solver(self) -> Solver:
        """Its arithmetic as a table.

        Raises:
            UnsupportedSolver: it has none, or steps to other timesteps than those of its grid.
        """
        own = self.prepared()
        grid = own.timesteps.tolist()
        stride = int(own.config.num_train_timesteps) // self.num_inference_steps
        if kind_of(own) == "ddim" and any(a - b != stride for a, b in zip(grid, grid[1:])):
            raise UnsupportedSolver(
                f"diffusers' DDIM with {self.num_inference_steps} steps and timestep_spacing="
                f"{own.config.timestep_spacing!r} steps beside its own timesteps: use timestep_spacing='leading', or "
                "runtime=reference, which does the same"
            )
        return solver_from_scheduler(own, dict(self.step_kwargs))

    def noise(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Raises:
        ValueError: a list of generators that is not one per sample.
        """
        if generator is None or isinstance(generator, torch.Generator):
            source = like.device if generator is None else generator.device
            return torch.randn(like.shape, generator=generator, device=source, dtype=like.dtype).to(like.device)
        if len(generator) != len(like):
            raise ValueError(
                f"got {len(generator)} generators for a batch of {len(like)}: pass one per sample, or a single one"
            )
        return torch.cat([self.noise(row, own) for row, own in zip(like.split(1), generator)])

    def draw(
        self, like: Tensor, draws: Sequence[bool], generator: Generators = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        initial = self.noise(like, generator)
        return initial, [self.noise(like, generator) if drawn else None for drawn in draws]

    def begin(self, scheduler: Any, known: Tensor, generator: Generators) -> Tensor:
        return self.noise(known, generator)

    def step(
        self, scheduler: Any, prediction: Tensor, timestep: Tensor, trajectory: Tensor, generator: Generators
    ) -> Tensor:
        if generator is not None and not isinstance(generator, torch.Generator):
            generator = list(generator)  # diffusers knows no other sequence
        return scheduler.step(prediction, timestep, trajectory, generator=generator, **self.step_kwargs).prev_sample
