"""Crops of camera images: the centre, or in training random places, so that small shifts of a camera do not matter."""

from __future__ import annotations

import torch
from torch import Tensor


def centre_crops(images: Tensor, height: int, width: int) -> Tensor:
    """[N, C, H, W] -> [N, C, height, width]"""
    top, left = (round((size - crop) / 2) for size, crop in zip(images.shape[-2:], (height, width)))
    return images[..., top : top + height, left : left + width]


def random_crops(images: Tensor, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """[N, C, H, W] -> [N, C, height, width]; every image is cropped at a place of its own.

    All places are equally likely. Without a generator they come from PyTorch's global one.
    """
    device = images.device if generator is None else generator.device

    def window(size: int, crop: int) -> Tensor:
        """The pixels kept along one side, [N, crop]."""
        start = torch.randint(size - crop + 1, (len(images), 1), generator=generator, device=device)
        return (start + torch.arange(crop, device=device)).to(images.device)

    rows, columns = window(images.shape[2], height), window(images.shape[3], width)
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
