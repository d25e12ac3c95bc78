"""Transformer Diffusion Policy on low-dimensional observations."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators, Sampler


class DiffusionTransformerLowdimPolicy(nn.Module):
    """Generates action chunks by denoising a trajectory of T = `horizon` elements.

    Observations condition the denoiser either as tokens (`obs_as_cond`) or by inpainting: the trajectory then holds
    [action, observation] and the observed part of its first `n_obs_steps` elements is given. With
    `pred_action_steps_only` the trajectory is exactly the executed chunk.

    `sampler` is the denoising loop and may be replaced by another `Sampler` (that is how the policy is accelerated).
    Extra keyword arguments go to `scheduler.step`.
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
        super().__init__()
        if pred_action_steps_only and not obs_as_cond:
            raise ValueError("pred_action_steps_only needs obs_as_cond: inpainting needs the observed elements in the trajectory")
        if not pred_action_steps_only and n_obs_steps - 1 + n_action_steps > horizon:
            raise ValueError(
                f"n_obs_steps - 1 + n_action_steps = {n_obs_steps - 1 + n_action_steps} exceeds horizon = {horizon}"
            )
        self.model = model
        self.noise_scheduler = noise_scheduler
        self.mask_generator = LowdimMaskGenerator(action_dim, 0 if obs_as_cond else obs_dim, n_obs_steps)
        self.normalizer = LinearNormalizer()
        self.horizon, self.obs_dim, self.action_dim = horizon, obs_dim, action_dim
        self.n_action_steps, self.n_obs_steps = n_action_steps, n_obs_steps
        self.obs_as_cond, self.pred_action_steps_only = obs_as_cond, pred_action_steps_only
        self._dummy_variable = nn.Parameter(torch.empty(0))  # named in original checkpoints
        steps = num_inference_steps or noise_scheduler.config.num_train_timesteps
        self.sampler: Sampler = DiffusionSampler(model, noise_scheduler, steps, step_kwargs)

    @property
    def device(self) -> torch.device:
        return self._dummy_variable.device

    @property
    def chunk(self) -> slice:
        """Where the executed action chunk lies in the predicted trajectory."""
        start = 0 if self.pred_action_steps_only else self.n_obs_steps - 1
        return slice(start, start + self.n_action_steps)

    @property
    def trajectory_shape(self) -> tuple[int, int]:
        """(T, D) of the denoised trajectory."""
        steps = self.n_action_steps if self.pred_action_steps_only else self.horizon
        return steps, self.action_dim + (0 if self.obs_as_cond else self.obs_dim)

    # ---- inference ----
    def encode_observation(self, obs_dict: dict[str, Tensor]) -> Tensor:
        """Checks and normalises obs_dict['obs'] [B, >= To, Do] -> [B, To, Do]."""
        if "obs" not in obs_dict:
            raise ValueError(f"obs_dict needs the key 'obs' [B, To, {self.obs_dim}]; it has {sorted(obs_dict)}")
        obs = torch.as_tensor(obs_dict["obs"], dtype=torch.float32, device=self.device)
        if obs.ndim != 3 or obs.shape[1] < self.n_obs_steps or obs.shape[2] != self.obs_dim:
            raise ValueError(
                f"obs has shape {tuple(obs.shape)}; this policy expects [B, {self.n_obs_steps}, {self.obs_dim}] "
                "(batch, observation steps, observation size)"
            )
        obs = obs[:, : self.n_obs_steps]
        if not torch.isfinite(obs).all():
            rows = (~torch.isfinite(obs).flatten(1).all(1)).nonzero().flatten().tolist()
            raise ValueError(f"obs holds NaN or infinite values in batch rows {rows[:8]}: check the sensor or simulator")
        return self.normalizer["obs"].normalize(obs)

    @torch.no_grad()
    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """Observation -> action chunk.

        Args:
            obs_dict: {'obs': [B, To, Do]} in the environment's units.
            generator: None, a torch.Generator, or one per sample.
        Returns:
            'action' [B, n_action_steps, Da] to execute and 'action_pred' [B, T, Da], in the environment's units; when
            inpainting also 'obs_pred' [B, T, Do] and its executed part 'action_obs_pred'.
        """
        nobs = self.encode_observation(obs_dict)
        condition = nobs.new_zeros(nobs.shape[0], *self.trajectory_shape)
        if self.obs_as_cond:
            sample = self.sampler(condition, None, nobs, generator)
        else:
            condition[:, : self.n_obs_steps, self.action_dim :] = nobs
            sample = self.sampler(condition, self.mask_generator(condition.shape), None, generator)

        action_pred = self.normalizer["action"].unnormalize(sample[..., : self.action_dim])
        result = {"action": action_pred[:, self.chunk], "action_pred": action_pred}
        if not self.obs_as_cond:
            result["obs_pred"] = self.normalizer["obs"].unnormalize(sample[..., self.action_dim :])
            result["action_obs_pred"] = result["obs_pred"][:, self.chunk]
        return result

    # ---- training ----
    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        self.normalizer.load_state_dict(normalizer.state_dict())

    def optimizer_groups(self, weight_decay: float) -> list[dict]:
        return self.model.optimizer_groups(weight_decay)

    def compute_loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Denoising loss (Ho et al. 2020, eq. 14) on a batch {'obs': [B, T, Do], 'action': [B, T, Da]} in raw units."""
        nbatch = self.normalizer.normalize({key: batch[key] for key in ("obs", "action")})
        obs, trajectory, cond = nbatch["obs"], nbatch["action"], None
        if self.obs_as_cond:
            cond = obs[:, : self.n_obs_steps]
            if self.pred_action_steps_only:
                start = self.n_obs_steps - 1
                trajectory = trajectory[:, start : start + self.n_action_steps]
        else:
            trajectory = torch.cat([trajectory, obs], dim=-1)

        noise = torch.randn(trajectory.shape, generator=generator, device=trajectory.device)
        timesteps = torch.randint(
            self.noise_scheduler.config.num_train_timesteps, (trajectory.shape[0],), generator=generator, device=noise.device
        )
        given = self.mask_generator(trajectory.shape)
        noisy = torch.where(given, trajectory, self.noise_scheduler.add_noise(trajectory, noise, timesteps))
        prediction = self.model(noisy, timesteps, cond)
        kind = self.noise_scheduler.config.prediction_type
        if kind not in ("epsilon", "sample"):
            raise ValueError(f"prediction_type {kind!r} is not supported: use 'epsilon' or 'sample'")
        target = noise if kind == "epsilon" else trajectory
        return (F.mse_loss(prediction.float(), target, reduction="none") * ~given).mean()
