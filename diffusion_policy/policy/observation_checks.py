"""Observations as they arrive from an environment or data set -> float32 tensors for the policy, or a clear error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.errors import InputError

_TOLERANCE = 1e-3  # resized images leave [0, 1] by rounding


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. A sum is one pass, `isfinite` several; finite values may overflow in it."""
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def checked_observation(
    obs_dict: Mapping[str, Any], name: str, shape: tuple[int, ...], n_obs_steps: int, device: torch.device, camera: bool
) -> Tensor:
    """obs_dict[name] [B, >= To, *shape] -> float32 [B, To, *shape] on the device.

    Raises:
        ValueError: it is missing, has another shape, is not finite, or is no image with values in [0, 1].
    """
    expected = ", ".join(map(str, shape))
    if not isinstance(obs_dict, Mapping):
        raise InputError(
            f"observations are a {type(obs_dict).__name__}: pass a dict with the key {name!r} [B, To, {expected}]"
        )
    if name not in obs_dict:
        raise InputError(f"obs_dict needs the key {name!r} [B, To, {expected}]; it has {sorted(map(str, obs_dict))}")
    value = obs_dict[name]
    if isinstance(value, np.ndarray) and any(stride < 0 for stride in value.strides):
        value = value.copy()  # a flipped image, which PyTorch does not take
    try:
        value = torch.as_tensor(value, dtype=None if camera else torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no array of numbers [B, {n_obs_steps}, {expected}]: {error}") from error
    actual = tuple(value.shape)
    if len(actual) != 2 + len(shape) or actual[1] < n_obs_steps or actual[2:] != shape:
        axes = "channels, height, width" if camera else "observation size"
        advice = _axes_advice(actual, shape, n_obs_steps)
        advice = advice or (_image_advice if camera else _vector_advice)(actual, shape)
        raise InputError(
            f"{name} has shape {actual}; this policy expects [B, {n_obs_steps}, {expected}] "
            f"(batch, observation steps, {axes}): {advice}"
        )
    value = value[:, :n_obs_steps]
    if not all_finite(value):
        rows = (~torch.isfinite(value).flatten(1).all(1)).nonzero().flatten().tolist()
        raise InputError(f"{name} holds NaN or infinite values in batch rows {rows[:8]}: check the sensor or simulator")
    return unit_images(name, value) if camera else value


def _axes_advice(actual: tuple[int, ...], shape: tuple[int, ...], steps: int) -> str:
    """What is wrong with the axes of batch and observation steps, where the rest is right; or nothing."""
    frames = f"the last {steps} frames" if steps > 1 else "the last frame"
    if actual[2:] == shape:
        swapped = "; if its first axis is that of the frames, swap the first two axes" if actual[0] >= steps else ""
        count = f"{actual[1] or 'no'} observation step{'s' if actual[1] > 1 else ''}"
        advice = f"pass {frames}, at the start of an episode the first one repeated{swapped}"
        return f"it has {count} instead of {steps}: {advice}"
    if actual == shape:
        advice = f"stack {frames} and add an axis for the batch, as with [None]"
        return f"the axes of batch and observation steps are missing: {advice}"
    if actual[1:] == shape:
        if actual[0] == steps and steps > 1:
            return "the axis of the batch is missing: add it in front, as with [None]"
        if steps == 1 or actual[0] < steps:
            advice = f"pass {frames} of every environment, stacked along a second axis"
            return f"the axis of observation steps is missing: {advice}"
        return "the axis of the batch or that of observation steps is missing: pass both"
    if len(actual) == 1 + len(shape) and actual[1] == steps * shape[0] and actual[2:] == shape[1:]:
        advice = f"give them an axis of their own, as with .reshape(B, {steps}, ...)"
        return f"the {steps} observation steps are joined: {advice}"
    if len(actual) > 2 + len(shape):
        return f"it has {len(actual)} axes instead of {2 + len(shape)}: take the others out"
    return ""


def _image_advice(actual: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What is wrong with the images themselves."""
    last = actual[-3:]
    if len(actual) < 3:
        return f"it holds no images: pass them with {shape[0]} channels, height and width as the last three axes"
    channels, height, width = shape
    resize = f"let the camera draw {height} x {width} pixels, or resize its images"
    if last == (height, width, channels):
        return "put the channels before height and width"
    if last == (channels, width, height):
        return "height and width are swapped: swap the last two axes"
    if last[-1] == channels and last[0] != channels:
        return f"put the channels before height and width, and {resize}"
    if last[0] != channels and last[1:] == (height, width) and len(actual) == 5:
        count = f"{last[0]} channel{'s' if last[0] > 1 else ''}"
        return f"its images have {count} instead of {channels}: give the colours that the policy was trained with"
    if last[0] == channels and last[1:] != (height, width):
        return resize
    return "bring its axes into this order"


def _vector_advice(actual: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What is wrong with low-dimensional observations themselves."""
    if len(actual) == 3 and actual[1] == shape[0]:
        return "the last two axes are swapped: observation steps come before the numbers of one observation"
    if len(actual) == 3 or len(actual) == 2 and actual[-1] != shape[0]:
        count = f"{actual[-1]} numbers instead of {shape[0]}"
        return f"an observation has {count}: give those that the policy was trained with"
    return "bring its axes into this order"


def unit_images(name: str, images: Tensor) -> Tensor:
    """uint8 images, or floating ones in [0, 1] -> float32 images in [0, 1].

    Raises:
        ValueError: other types or values.
    """
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise InputError(f"{name} is of type {images.dtype}: give uint8 images, or floating ones with values in [0, 1]")
    images = images.float()
    if images.numel():
        low, high = (value.item() for value in images.aminmax())
        if not (-_TOLERANCE <= low and high <= 1 + _TOLERANCE):
            raise InputError(f"{name} holds values from {low:.4g} to {high:.4g}: give images in [0, 1], or uint8 ones")
    return images
