"""Exponential moving average of the weights (Chi et al. 2023), its decay warmed up by a power law (K. Crowson)."""

from __future__ import annotations

import math

import torch
from torch import nn

from diffusion_policy.common.config import ConfigError


class EMAModel:
    """Keeps `averaged` an exponential moving average of a model.

    The decay after n updates is `1 - (1 + n / inv_gamma) ** -power`, clipped to [min_value, max_value]: about 0.999
    after 10k and 0.9999 after 215k updates for power 0.75. Parameters without gradient (the normalizer) and buffers are
    copied.

    Args:
        averaged: a copy of the model, which is put into evaluation mode and holds the average.
        update_after_step: the number of updates during which the average is the model itself.

    Raises:
        ConfigError: settings with which the decay would leave [0, 1] or never grow.
    """

    def __init__(
        self,
        averaged: nn.Module,
        update_after_step: int = 0,
        inv_gamma: float = 1.0,
        power: float = 0.75,
        min_value: float = 0.0,
        max_value: float = 0.9999,
    ):
        _require(
            "update_after_step",
            update_after_step,
            isinstance(update_after_step, int) and update_after_step >= 0,
            "a whole number, at least 0",
        )
        _require("inv_gamma", inv_gamma, _is_number(inv_gamma) and inv_gamma > 0, "a number above 0")
        _require("power", power, _is_number(power) and power > 0, "a number above 0")
        _require("max_value", max_value, _is_number(max_value) and 0 <= max_value <= 1, "a number from 0 to 1")
        _require(
            "min_value",
            min_value,
            _is_number(min_value) and 0 <= min_value <= max_value,
            f"a number from 0 to max_value={max_value}",
        )
        self.averaged = averaged.eval().requires_grad_(False)
        self.update_after_step, self.inv_gamma, self.power = update_after_step, inv_gamma, power
        self.min_value, self.max_value = min_value, max_value
        self.optimization_step = 0

    def decay(self, step: int) -> float:
        """The weight of the old average in the update after `step` ones, in [0, 1]."""
        step = max(0, step - self.update_after_step - 1)
        if step == 0:
            return 0.0
        return max(self.min_value, min(1 - (1 + step / self.inv_gamma) ** -self.power, self.max_value))

    @torch.no_grad()
    def step(self, model: nn.Module) -> None:
        """Moves the average towards the weights of `model`: call it after every optimizer step."""
        decay = self.decay(self.optimization_step)
        pairs = list(zip(self.averaged.parameters(), model.parameters()))
        trained = [(a, p.detach()) for a, p in pairs if p.requires_grad and p.numel()]
        torch._foreach_lerp_([a for a, _ in trained], [p for _, p in trained], 1 - decay)
        for average, parameter in pairs:
            if not parameter.requires_grad:
                average.copy_(parameter)
        for average, buffer in zip(self.averaged.buffers(), model.buffers()):
            average.copy_(buffer)
        self.optimization_step += 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(name: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise ConfigError(f"ema.{name}={value} is not possible: use {wanted}")
