"""Policies that a training keeps, replaces and drops, each complete or without a config at every moment."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion_policy.common.files import atomic_path
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE


def copy_policy(source: Path, target: Path) -> None:
    """Replaces the policy in `target`, which is complete or without a config at every moment."""
    config = (source / CONFIG_FILE).read_bytes()
    if (target / CONFIG_FILE).exists() and (target / CONFIG_FILE).read_bytes() != config:
        (target / CONFIG_FILE).unlink()
    with atomic_path(target / WEIGHTS_FILE) as temporary:
        shutil.copyfile(source / WEIGHTS_FILE, temporary)
    with atomic_path(target / CONFIG_FILE) as temporary:
        temporary.write_bytes(config)


def remove_policy(folder: Path) -> None:
    """The config first: a folder with a config is complete."""
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
