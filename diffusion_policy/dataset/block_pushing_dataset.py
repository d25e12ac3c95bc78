"""Block Pushing demonstrations (1000 episodes of the scripted oracle, about 115,000 steps at 10 Hz)."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer, split_episodes
from diffusion_policy.dataset.sequence_dataset import SequenceDataset, window_rows
from diffusion_policy.env.block_pushing.definition import (
    ACTION_DIM, EFFECTOR_TARGET, OBS_DIM, WORKSPACE_HIGH, WORKSPACE_LOW)

HINT = "Make the demonstrations with: python scripts/make_demos.py task=block_pushing"


def load_block_pushing(
    zarr_path: str | Path,
    horizon: int,
    pad_before: int = 0,
    pad_after: int = 0,
    val_ratio: float = 0.02,
    max_train_episodes: int | None = None,
    seed: int = 42,
    abs_action: bool = False,
    obs_eef_target: bool = True,
) -> tuple[SequenceDataset, SequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0).

    Observation [16] and action [2] as in `BlockPushingEnv`.

    Args:
        zarr_path: demonstrations with relative actions.
        abs_action: turn the actions into the effector targets that they led to.
        obs_eef_target: False zeroes the effector's target in the observations.
    """
    buffer = ReplayBuffer.from_zarr(zarr_path, ("obs", "action"), HINT)
    obs, action = (np.array(buffer.data[name], dtype=np.float32) for name in ("obs", "action"))
    if obs.shape[1:] != (OBS_DIM,) or action.shape[1:] != (ACTION_DIM,):
        raise DatasetError(f"{zarr_path} holds observations {list(obs.shape)} and actions {list(action.shape)} instead of "
                           f"[N, {OBS_DIM}] and [N, {ACTION_DIM}]: it is not Block Pushing. {HINT}")
    if abs_action:
        action = np.clip(obs[:, EFFECTOR_TARGET] + action, WORKSPACE_LOW, WORKSPACE_HIGH).astype(np.float32)
    if not obs_eef_target:
        obs[:, EFFECTOR_TARGET] = 0.0
    fields = {"obs": torch.from_numpy(obs), "action": torch.from_numpy(action)}
    masks = split_episodes(buffer.n_episodes, val_ratio, max_train_episodes, seed)
    train, val = (
        SequenceDataset(fields, window_rows(buffer, mask, horizon, pad_before, pad_after)) if mask.any() else None
        for mask in masks
    )
    return train, val
