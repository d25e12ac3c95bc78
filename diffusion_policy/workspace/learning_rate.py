"""How the learning rate goes over a training."""

from __future__ import annotations

import math

from diffusion_policy.common.config import ConfigError

SCHEDULES = ("cosine", "trapezoid")


def learning_rate_factor(step: int, total: int, warmup: int, schedule: str, decay_fraction: float) -> float:
    """Multiplier of the learning rate, in [0, 1], at `step` (0-based) of `total`.

    Args:
        warmup: steps in which it rises linearly.
        schedule: 'cosine' to zero at the end, or 'trapezoid': constant, then linear to zero.
        decay_fraction: last part of the training, in which a trapezoid falls.
    Raises:
        ConfigError: there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"unknown lr_schedule {schedule!r}: use {' or '.join(SCHEDULES)}")
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
    return min(1.0, max(0.0, (total - step) / max(1.0, decay_fraction * total)))
