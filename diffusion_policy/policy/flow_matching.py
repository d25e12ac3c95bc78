"""Flow matching on straight paths (Lipman et al. 2023; Liu et al. 2023, "rectified flow"), in the form of a scheduler.

A path leads from noise to a trajectory: x_s = (1 - s) x_0 + s noise, with the level s from 1 down to 0. The model
predicts its velocity noise - x_0, and Euler's method follows it: x <- x + (s_next - s) velocity. As in diffusers'
`FlowMatchEulerDiscreteScheduler`, whose sign and levels these are; here timesteps are the whole numbers 0 ... T - 1
that a policy's other schedulers have, the level of t is (t + 1) / T, and K steps end at level 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.light_diffusers import ConfigMixin, SchedulerMixin, register_to_config


@dataclass(frozen=True)
class FlowMatchingOutput:
    """One update of a trajectory.

    Attributes:
        prev_sample: the next trajectory [B, T, D].
    """

    prev_sample: Tensor


class FlowMatching(SchedulerMixin, ConfigMixin):
    """Training paths and Euler's method.

    Args:
        num_train_timesteps: T, the levels that are drawn in training.

    Attributes:
        timesteps: int64 [K], descending; set by `set_timesteps`.
        sigmas: [K + 1], the levels of the timesteps, and 0.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps: int = 100, prediction_type: str = "flow"):
        if prediction_type != "flow":
            raise ValueError(f"prediction_type={prediction_type!r} is not possible: flow matching predicts 'flow'")
        self.set_timesteps(num_train_timesteps)

    def levels(self, timesteps: Tensor) -> Tensor:
        """Levels of noise s, in float32."""
        return (timesteps.float() + 1) / self.config.num_train_timesteps

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """K evenly spaced levels from 1 down, each rounded to one of training.

        Raises:
            ValueError: there are not so many.
        """
        trained = self.config.num_train_timesteps
        if not 1 <= num_inference_steps <= trained:
            raise ValueError(f"{num_inference_steps} steps are not possible: use 1 to {trained}")
        grid = np.round(trained * np.arange(num_inference_steps, 0, -1) / num_inference_steps).astype(np.int64) - 1
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.from_numpy(grid).to(device)
        self.sigmas = torch.cat([self.levels(self.timesteps), torch.zeros(1, device=self.timesteps.device)])

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """`sample` as it is; other schedulers scale it."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Points [B, T, D] of the paths from `noise` to `original_samples` [B, T, D] at timesteps [B]."""
        level = self.levels(timesteps).to(original_samples.dtype).view(-1, *[1] * (original_samples.ndim - 1))
        return (1 - level) * original_samples + level * noise

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None, return_dict: bool = True
    ) -> FlowMatchingOutput | tuple[Tensor]:
        """x <- x + (s_next - s) velocity, all [B, T, D]. No noise is drawn.

        Raises:
            ValueError: `timestep` is not one of `timesteps`.
        """
        places = (self.timesteps == int(timestep)).nonzero()
        if len(places) != 1:
            raise ValueError(f"timestep {int(timestep)} is not one of the {len(self.timesteps)} that were set")
        place = int(places[0])
        result = sample + (self.sigmas[place + 1] - self.sigmas[place]).item() * model_output
        return FlowMatchingOutput(result) if return_dict else (result,)
