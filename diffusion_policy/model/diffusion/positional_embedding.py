"""Sinusoidal embedding of the diffusion timestep (Vaswani et al. 2017, section 3.5; no learned parameters)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinusoidalPosEmb(nn.Module):
    """Maps timesteps [B] to embeddings [B, dim]: the first half sines, the second half cosines."""

    def __init__(self, dim: int):
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"SinusoidalPosEmb needs an even dim of at least 4, got {dim}")
        self.dim = dim

    def forward(self, timesteps: Tensor) -> Tensor:
        """Timesteps [B] -> embeddings [B, dim]."""
        half = self.dim // 2
        exponent = torch.arange(half, device=timesteps.device) * -(math.log(10000) / (half - 1))
        angles = timesteps[:, None] * torch.exp(exponent)[None, :]  # [B, dim / 2]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
