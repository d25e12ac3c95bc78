"""Transformer Diffusion Policy on low-dimensional observations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy


class DiffusionTransformerLowdimPolicy(DiffusionTransformerPolicy):
    """Acts on {'obs': [B, To, Do]}, in the environment's units; see `DiffusionTransformerPolicy`.

    Args:
        obs_dim: Do; action_dim: Da.
        step_kwargs: go to `scheduler.step`.
    """

    def __init__(
        self,
        model: TransformerForDiffusion,
        noise_scheduler: Any,
        horizon: int,
        obs_dim: int,
        action_dim: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        obs_as_cond: bool = False,
        pred_action_steps_only: bool = False,
        **step_kwargs: Any,
    ):
        super().__init__(
            model,
            noise_scheduler,
            horizon,
            {"obs": (obs_dim,)},
            (),
            obs_dim,
            action_dim,
            n_action_steps,
            n_obs_steps,
            num_inference_steps,
            obs_as_cond,
            pred_action_steps_only,
            step_kwargs,
        )

    def encode(self, nobs: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Normalised observations [B, To, Do] as they are."""
        return nobs["obs"]

    def decode(self, sample: Tensor) -> dict[str, Tensor]:
        """As in `DiffusionTransformerPolicy`; when inpainting with 'obs_pred' and 'action_obs_pred', too."""
        result = super().decode(sample)
        if not self.obs_as_cond:
            result["obs_pred"] = self.normalizer["obs"].unnormalize(sample[..., self.action_dim :])
            result["action_obs_pred"] = result["obs_pred"][:, self.chunk]
        return result
