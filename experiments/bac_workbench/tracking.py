"""Weights & Biases, optional: nothing is imported unless it is asked for."""

from __future__ import annotations

import secrets
from pathlib import Path
from types import ModuleType
from typing import Any

from bac_workbench.settings.task import Wandb
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path

RUN_FILE = "wandb_run"  # in an output folder: the id of its run


def check_tracking(settings: Wandb) -> ModuleType | None:
    """wandb, or None for wandb.mode=disabled.

    Raises:
        ConfigError: it is not installed; or mode=online without a login, which wandb would ask for.
    """
    if settings.mode == "disabled":
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "wandb.mode is set but wandb is not installed: pip install 'bac-workbench[wandb]', or wandb.mode=disabled"
        ) from error
    if settings.mode == "online" and not wandb.api.api_key:
        raise ConfigError("wandb.mode=online needs a login: run `wandb login`, or use wandb.mode=offline")
    return wandb


def start_run(
    settings: Wandb, config: dict[str, Any], name: str, folder: Path | None = None, resume: bool = False
) -> Any | None:
    """A wandb run, or None for wandb.mode=disabled.

    Args:
        config: all settings of the command, as plain values.
        name: of the run.
        folder: where the run's id is kept, so that a training that goes on also goes on in its run.
        resume: go on with the run whose id is there, if one is. Offline, wandb writes a further folder of the same run.
    """
    wandb = check_tracking(settings)
    if wandb is None:
        return None
    same = {}
    if folder is not None:
        same = {"id": _run_id(folder, resume), **({"resume": "allow"} if settings.mode == "online" else {})}
    return wandb.init(project=settings.project, name=name, mode=settings.mode, config=config, **same)


def _run_id(folder: Path, resume: bool) -> str:
    path = folder / RUN_FILE
    if resume and path.is_file() and (stored := path.read_text().strip()).isalnum():
        return stored
    fresh = secrets.token_hex(4)
    with atomic_path(path) as temporary:
        temporary.write_text(fresh + "\n")
    return fresh
