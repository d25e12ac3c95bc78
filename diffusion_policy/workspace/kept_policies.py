"""Policies that a training keeps, replaces and drops, each complete or without a config at every moment."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion_policy.common.files import atomic_path
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE


def keep_best(checkpoints: Path, best: Path, scores: dict[str, float], newest: str, topk: int) -> None:
    """Copies the newest checkpoint to `best` if none scores higher, and drops all but the `topk` best and the newest.

    Args:
        checkpoints: the folder with a folder for each name of `scores`.
        scores: by name; those of dropped checkpoints are removed.
    """
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    if ranked[0] == newest:
        copy_policy(checkpoints / newest, best)
    for name in ranked[topk:]:
        if name != newest:
            remove_policy(checkpoints / name)
            del scores[name]


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
