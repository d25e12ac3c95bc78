"""Key points of a feature map: where in the image each learned feature is (Finn et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Feature map [N, C, H, W] -> K key points [N, K, 2]: the mean (x, y), in [-1, 1], of each map after a softmax."""

    def __init__(self, channels: int, height: int, width: int, n_keypoints: int = 32):
        super().__init__()
        self.nets = nn.Conv2d(channels, n_keypoints, kernel_size=1)
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width)), indexing="ij")
        self.register_buffer("temperature", torch.ones(1))
        self.register_buffer("pos_x", x.reshape(1, -1).float())  # [1, H W]
        self.register_buffer("pos_y", y.reshape(1, -1).float())

    def forward(self, features: Tensor) -> Tensor:
        scores = self.nets(features).flatten(2)  # [N, K, H W]
        attention = (scores / self.temperature).softmax(dim=-1)
        return torch.stack([(attention * self.pos_x).sum(-1), (attention * self.pos_y).sum(-1)], dim=-1)
