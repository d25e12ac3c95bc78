"""Weights & Biases, optional: nothing is imported unless it is asked for."""
from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from diffusion_policy.common.config import ConfigError, to_plain


def start_run(cfg: DictConfig, name: str) -> Any | None:
    """A wandb run, or None for wandb.mode=disabled. mode=online without a login is an error, not a prompt."""
    mode = cfg.wandb.mode
    if mode == "disabled":
        return None
    if mode not in ("online", "offline"):
        raise ConfigError(f"wandb.mode={mode} is unknown: use online, offline or disabled")
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("wandb.mode is set but wandb is not installed: pip install -e .[wandb], or wandb.mode=disabled") from error
    if mode == "online" and not wandb.api.api_key:
        raise ConfigError("wandb.mode=online needs a login: run `wandb login`, or use wandb.mode=offline")
    return wandb.init(project=cfg.wandb.project, name=name, mode=mode, config=to_plain(cfg))
