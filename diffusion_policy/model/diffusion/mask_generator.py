"""Which entries of a trajectory are known (conditioned on) when the policy inpaints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LowdimMaskGenerator(nn.Module):
    """Marks the observation part of the first `n_obs_steps` elements of a [B, T, action_dim + obs_dim] trajectory."""

    def __init__(self, action_dim: int, obs_dim: int, n_obs_steps: int):
        super().__init__()
        self.action_dim, self.obs_dim, self.n_obs_steps = action_dim, obs_dim, n_obs_steps
        self._dummy_variable = nn.Parameter(torch.empty(0))  # named in original checkpoints

    def forward(self, shape: torch.Size) -> Tensor:
        """[B, T, D] -> boolean mask of that shape, true where the value is known."""
        mask = torch.zeros(shape, dtype=torch.bool, device=self._dummy_variable.device)
        if self.obs_dim:
            mask[:, : self.n_obs_steps, self.action_dim :] = True
        return mask
