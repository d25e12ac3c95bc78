"""Observations as they arrive from an environment or data set -> float32 tensors that fit the policy, or a clear error."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_TOLERANCE = 1e-3  # resized images leave [0, 1] by rounding


def checked_observation(
    obs_dict: Mapping[str, Any], name: str, shape: tuple[int, ...], n_obs_steps: int, device: torch.device, camera: bool
) -> Tensor:
    """obs_dict[name] [B, >= To, *shape] -> float32 [B, To, *shape] on the device.

    Raises:
        ValueError: it is missing, has another shape, is not finite, or is no image with values in [0, 1].
    """
    expected = ", ".join(map(str, shape))
    if name not in obs_dict:
        raise ValueError(f"obs_dict needs the key {name!r} [B, To, {expected}]; it has {sorted(obs_dict)}")
    value = torch.as_tensor(obs_dict[name], dtype=None if camera else torch.float32, device=device)
    if value.ndim != 2 + len(shape) or value.shape[1] < n_obs_steps or tuple(value.shape[2:]) != shape:
        axes = "channels, height, width" if camera else "observation size"
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; this policy expects [B, {n_obs_steps}, {expected}] "
            f"(batch, observation steps, {axes})" + (_image_advice(tuple(value.shape[2:]), shape) if camera else "")
        )
    value = value[:, :n_obs_steps]
    if not torch.isfinite(value).all():
        rows = (~torch.isfinite(value).flatten(1).all(1)).nonzero().flatten().tolist()
        raise ValueError(f"{name} holds NaN or infinite values in batch rows {rows[:8]}: check the sensor or simulator")
    return unit_images(name, value) if camera else value


def _image_advice(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if len(found) == 3 and found == (*expected[1:], expected[0]):
        return ": put the channels before height and width"
    if len(found) == 3 and found[0] == expected[0]:
        return f": let the camera draw {expected[1]} x {expected[2]} pixels, or resize its images"
    return ""


def unit_images(name: str, images: Tensor) -> Tensor:
    """uint8 images, or floating ones in [0, 1] -> float32 images in [0, 1].

    Raises:
        ValueError: other types or values.
    """
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise ValueError(f"{name} is of type {images.dtype}: give uint8 images, or floating ones with values in [0, 1]")
    images = images.float()
    if images.numel():
        low, high = (value.item() for value in images.aminmax())
        if not (-_TOLERANCE <= low and high <= 1 + _TOLERANCE):
            raise ValueError(f"{name} holds values from {low:.4g} to {high:.4g}: give images in [0, 1], or uint8 ones")
    return images
