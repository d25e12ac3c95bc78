"""A denoising loop on any grid of timesteps, from a checkpoint's noise schedule; it needs no scheduler's class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.errors import UserError
from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.samplers.coupling import noise_weights, undefined_because
from bac.samplers.grids import OF_DIFFUSERS, check_grid, spacing_of
from bac.samplers.settings import GridSettings, InvalidGridSettings
from bac.samplers.tables import solver_table
from bac.scheduler_kinds import clips
from bac.solver import COLUMNS, Solver

__all__ = ["GridLoop", "GridSettings"]


class UndefinedCoupling(UserError, ValueError):
    """Coupled noise was asked for where there is no full policy to follow."""


class GridLoop:
    """Denoises on `settings.timesteps`, step by step; a policy's `sampler`, or the base of any runtime.

        policy.sampler = GridLoop(policy.sampler, GridSettings("ancestral", (92, 54, 26, 10, 4)))

    Calls share nothing: each has a `Chain` of its own. The noise schedule, what the model predicts and clipping are
    those of the checkpoint's scheduler.

    Args:
        own: the checkpoint's own denoising loop; of a GridLoop, that one's own.

    Attributes:
        settings: with `coupled` and `reclip` decided.
        table: float64 [k, 7], see `bac.solver`.

    Raises:
        UndefinedCoupling: `settings.coupled` where it is not defined.
        InvalidGridSettings, ImpossibleGrid: the settings do not fit the noise schedule.
    """

    def __init__(self, own: DenoisingLoop, settings: GridSettings):
        self.own: DenoisingLoop = own.own if isinstance(own, GridLoop) else own
        scheduler = self.own.scheduler
        config = scheduler.config
        self.prediction_type = str(config.prediction_type)
        if self.prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise InvalidGridSettings(f"prediction_type={self.prediction_type} has no grid sampler")
        products = torch.as_tensor(scheduler.alphas_cumprod).detach().cpu()
        check_grid(settings.timesteps, len(products))
        if config.get("thresholding", False):
            raise InvalidGridSettings("the policy was trained with thresholding=True, which no grid sampler does")
        self.settings = self._decided(settings, len(products))
        self.clip = float(config.get("clip_sample_range", 1.0)) if clips(scheduler) else float("inf")
        self.table = solver_table(self.settings, products, self.prediction_type)
        if not np.isfinite(self.table).all():
            bad = settings.timesteps[int(np.flatnonzero(~np.isfinite(self.table).all(axis=1))[0])]
            raise InvalidGridSettings(f"no finite step leaves timestep {bad}, where no signal is left: begin below it")
        kept = products[list(settings.timesteps)]
        self.levels: list[tuple[float, float]] = list(zip((kept**0.5).tolist(), ((1 - kept) ** 0.5).tolist()))
        self._weights = self._noise_weights(products)
        undrawn = [k for k, row in enumerate(self.table) if row[COLUMNS.index("sigma")] and not self.draws[k]]
        if undrawn:
            raise InvalidGridSettings(f"scalars add noise at steps {undrawn}, where {self.settings.kind} draws none")

    def _decided(self, settings: GridSettings, trained: int) -> GridSettings:
        why_not = undefined_because(self.own)
        if (settings.coupled or settings.noise_weights is not None) and why_not is not None:
            raise UndefinedCoupling(f"{why_not}: use coupled=false")
        coupled, reclip = settings.coupled, settings.reclip
        if coupled is None:
            coupled = settings.noise_weights is not None or (settings.kind == "ancestral" and why_not is None)
        if reclip is None and settings.kind == "ddim":
            reclip = spacing_of(settings.timesteps, "ddim", trained) not in OF_DIFFUSERS
        return dataclasses.replace(settings, coupled=coupled, reclip=reclip)

    def _noise_weights(self, products: Tensor) -> Tensor | None:
        """[k, T], or None where noise is fresh or that of the full policy as it is."""
        settings, trained = self.settings, len(products)
        if not settings.coupled:
            return None
        if settings.noise_weights is None:
            if settings.steps == trained:
                return None
            return torch.from_numpy(noise_weights(products.numpy(), settings.timesteps))
        if len(settings.noise_weights[0]) != trained:
            raise InvalidGridSettings(f"noise_weights needs {trained} columns, one for each noise of the full policy")
        return torch.tensor(settings.noise_weights, dtype=torch.float64)

    # ---- what a DenoisingLoop has ----
    @property
    def model(self) -> Any:
        return self.own.model

    @property
    def scheduler(self) -> Any:
        """The checkpoint's own, which is read and never stepped."""
        return self.own.scheduler

    @property
    def num_inference_steps(self) -> int:
        return self.settings.steps

    @property
    def step_kwargs(self) -> Mapping[str, Any]:
        """None: what a scheduler's step would be told is in `settings`."""
        return {}

    @property
    def draws(self) -> list[bool]:
        """At which steps noise is drawn. Uncoupled DDIM draws it at the last step too, as diffusers does."""
        last = self.settings.kind == "ddim" and not self.settings.coupled
        noisy = self.settings.kind == "ancestral" or self.settings.eta > 0
        return [noisy and (last or k + 1 < self.settings.steps) for k in range(self.settings.steps)]

    def solver(self) -> Solver:
        """The table that `planned` and `compiled` run."""
        return Solver(
            table=self.table.copy(),
            clip=self.clip,
            draws=np.array(self.draws),
            timesteps=np.array(self.settings.timesteps, dtype=np.int64),
            init_sigma=1.0,
        )

    def prepared(self, device: torch.device | None = None) -> Chain:
        """The state of one call."""
        return Chain(self, device)

    def noise(self, like: Tensor, generator: Generators = None) -> Tensor:
        """As the checkpoint's own loop."""
        return self.own.noise(like, generator)

    def draw(
        self, like: Tensor, draws: Sequence[bool], generator: Generators = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise [B, T, D], and that of each step or None.

        Coupled, all noise of the full policy is drawn in its order, also what is not needed: a generator ends where the
        full policy leaves it.
        """
        if not self.settings.coupled:
            return self.own.draw(like, draws, generator)
        stacked = self._of_the_full_policy(like, generator)
        if self._weights is not None:
            # In double precision, so that a sample's noise does not depend on how many are in its batch.
            if self._weights.device != like.device:
                self._weights = self._weights.to(like.device)  # once, and not at every call
            mixed = self._weights @ stacked.flatten(1).double()
            stacked = mixed.to(like.dtype).view(-1, *like.shape)
        initial, *noises = stacked.unbind()
        return initial, [noise if drawn else None for noise, drawn in zip([*noises, None], draws)]

    def _of_the_full_policy(self, like: Tensor, generator: Generators) -> Tensor:
        """Initial noise and that of its steps but the last, [T, B, T', D]."""
        count = len(self.scheduler.alphas_cumprod)
        at_once = getattr(self.own, "draw_many", None)
        if at_once is not None:
            return at_once(count, like, generator)
        initial, noises = self.own.draw(like, [True] * (count - 1) + [False], generator)
        return torch.stack([initial, *(noise for noise in noises if noise is not None)])

    def begin(self, scheduler: Chain, known: Tensor, generator: Generators) -> Tensor:
        """The initial noise [B, T, D]; that of the steps is drawn, too, and kept in `scheduler`."""
        initial, scheduler.noises = self.draw(known, self.draws, generator)
        return initial

    def step(
        self, scheduler: Chain, prediction: Tensor, timestep: Tensor, trajectory: Tensor, generator: Generators
    ) -> Tensor:
        """The next trajectory [B, T, D]. The noise is that which `begin` drew."""
        return scheduler.step(prediction, timestep, trajectory)

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """Samples trajectories [B, T, D] in normalised units; see `bac.loop.SamplerInputs`.

        Args:
            generator: None, one generator, or one per sample.
        """
        chain = self.prepared(inputs.known.device)
        trajectory = self.begin(chain, inputs.known, generator)
        for timestep in chain.timesteps:
            trajectory = inputs.impose(trajectory)
            prediction = self.model(trajectory, timestep, inputs.observation)
            trajectory = self.step(chain, prediction, timestep, trajectory, generator)
        return inputs.impose(trajectory)

    def on(self, own: DenoisingLoop) -> GridLoop:
        """The same settings on another loop, such as one with other weights.

        Raises:
            ValueError: they do not fit it.
        """
        return GridLoop(own, self.settings)


class Chain:
    """One call's state, in the place of a scheduler.

    Attributes:
        timesteps: int64 [k].
        noises: of each step, or None.
    """

    init_noise_sigma = 1.0

    def __init__(self, loop: GridLoop, device: torch.device | None):
        self.loop = loop
        self.timesteps = torch.tensor(loop.settings.timesteps, dtype=torch.int64, device=device)
        self.noises: list[Tensor | None] | None = None
        self.position = 0
        self.last: Tensor | None = None  # estimate of the clean sample at the step before

    def scale_model_input(self, trajectory: Tensor, timestep: Tensor) -> Tensor:
        return trajectory

    def step(self, prediction: Tensor, timestep: Tensor, trajectory: Tensor) -> Tensor:
        """One row of the table, in the order of operations of diffusers' DDPM, so that rounding is the same."""
        loop, k = self.loop, self.position
        _, _, to_x, to_x0, to_last, to_m, sigma = loop.table[k].tolist()
        x0 = self._clean(k, prediction, trajectory)
        if loop.clip != float("inf"):
            x0 = x0.clamp(-loop.clip, loop.clip)
        result = to_x0 * x0 + to_x * trajectory
        if to_last and self.last is not None:
            result = result + to_last * self.last
        if to_m:
            result = result + to_m * prediction
        if sigma:
            if self.noises is None:
                raise RuntimeError("a chain starts with begin(), which draws its noise")
            result = result + sigma * self.noises[k]
        self.position, self.last = k + 1, x0
        return result

    def _clean(self, k: int, prediction: Tensor, trajectory: Tensor) -> Tensor:
        """The estimate of the clean sample, not clipped."""
        loop, (a, s) = self.loop, self.loop.levels[k]
        if loop.settings.scalars is not None:
            x_gain, m_gain = loop.table[k, :2].tolist()
            return x_gain * trajectory + m_gain * prediction
        if loop.prediction_type == "epsilon":
            return (trajectory - s * prediction) / a
        return prediction if loop.prediction_type == "sample" else a * trajectory - s * prediction
