"""What the settings of a training have to be."""

from __future__ import annotations

import math
from typing import Any

from omegaconf import DictConfig

from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.learning_rate import SCHEDULES

PRECISIONS = ("bf16", "tf32", "fp32")


def check_training(cfg: DictConfig) -> None:
    """Raises ConfigError for settings that no training can have, before anything is read or written."""
    t = cfg.training
    _integer("seed", cfg.seed, 0, 2**40)
    for name in ("batch_size", "max_steps", "noise_draws", "topk"):
        _integer(f"training.{name}", t[name], 1)
    for name in ("warmup_steps", "num_workers", "log_every", "save_every", "validate_every", "checkpoint_every"):
        _integer(f"training.{name}", t[name], 0)
    if t.num_threads is not None:
        _integer("training.num_threads", t.num_threads, 1)
    _number("training.learning_rate", t.learning_rate, 0.0)
    _number("training.weight_decay", t.weight_decay, 0.0)
    _number("training.grad_clip", t.grad_clip, 0.0, above=True, infinite=True)
    if t.snr_gamma is not None:
        _number("training.snr_gamma", t.snr_gamma, 0.0, above=True)
    _number("training.decay_fraction", t.decay_fraction, 0.0, 1.0)
    betas = list(t.betas) if hasattr(t.betas, "__iter__") and not isinstance(t.betas, str) else [t.betas]
    if len(betas) != 2:
        raise ConfigError(f"training.betas={t.betas} is not possible: use two numbers, for example [0.9, 0.95]")
    for value in betas:
        _number("training.betas", value, 0.0, 1.0, below=True)
    if t.lr_schedule not in SCHEDULES:
        raise ConfigError(f"unknown training.lr_schedule={t.lr_schedule}: use {' or '.join(SCHEDULES)}")
    if t.precision not in PRECISIONS:
        raise ConfigError(f"training.precision={t.precision} is not supported: use bf16, tf32 (GPUs) or fp32")
    for name, value in (("training.cuda_graph", t.cuda_graph), ("resume", cfg.resume)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}={value} is not possible: use true or false")
    if cfg.init_checkpoint and cfg.transfer_from:
        raise ConfigError("init_checkpoint and transfer_from are two places to start from: set one of them")


def _integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ConfigError(
            f"{name}={value} is not possible: use a whole number, at least {low}"
            + (f" and at most {high}" if high else "")
        )


def _number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
    infinite: bool = False,
) -> None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    fits = fits and (low < value if above else low <= value) and (value < high if below else value <= high)
    if not fits or (math.isinf(value) and not infinite):
        upper = "" if math.isinf(high) else f" and {'below' if below else 'at most'} {high:g}"
        raise ConfigError(
            f"{name}={value} is not possible: use a number {'above' if above else 'of at least'} {low:g}{upper}"
        )
