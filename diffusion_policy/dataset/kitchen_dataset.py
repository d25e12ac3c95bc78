"""Franka Kitchen demonstrations as training windows: the human ones as logs and as arrays, and scripted ones.

Every loader gives the observation [60] of `KitchenEnv`, 30 joint positions and 30 zeros, and an action [9].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diffusion_policy.dataset.kitchen_files import Episode, read_arrays, read_logs
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import SequenceDataset, Windows
from diffusion_policy.env.kitchen.definition import ACTION_DIM, N_QPOS, NOISE_AMPLITUDE, NOISE_RATIO, OBS_DIM
from diffusion_policy.model.common.normalizer import FieldNormalizer

HINT = "Make the demonstrations with: bac demos task=kitchen_scripted_demos"

# Joint positions that move less than this in all demonstrations (rad or m) are not scaled up by the normalizer, as in
# the original. Actions always are: the original leaves the fingers' 0.04 m unscaled.
OBS_RANGE_EPS = 0.05

Datasets = tuple[SequenceDataset, "SequenceDataset | None"]


def load_kitchen_logs(
    dataset_dir: str | Path,
    windows: Windows,
    noise_ratio: float = NOISE_RATIO,
) -> Datasets:
    """Training and validation windows of the human logs (validation is None for val_ratio 0).

    The action is the joint positions that the human commanded. Observations get the noise of the environment, drawn
    once.

    Args:
        dataset_dir: the `*.mjl` logs, at any depth. A log that repeats an earlier one counts once (the published
            archive holds such copies, and the original trains on some of them twice).
        noise_ratio: scale of the observation noise; 0: none.
    """
    episodes = read_logs(dataset_dir)
    return _split(episodes, noise_ratio, windows)


def load_kitchen_npy(
    dataset_dir: str | Path,
    windows: Windows,
) -> Datasets:
    """Training and validation windows of the human demonstrations replayed in the simulator (None for val_ratio 0).

    The action is the joint velocities, in units of 2 rad/s, of `KitchenEnv(abs_action=False)`. No noise is added.

    Args:
        dataset_dir: holds the files that `read_arrays` reads.
    """
    episodes = read_arrays(dataset_dir)
    return _split(episodes, 0.0, windows)


def load_kitchen_scripted(
    zarr_path: str | Path,
    windows: Windows,
    noise_ratio: float = NOISE_RATIO,
) -> Datasets:
    """Training and validation windows of scripted demonstrations (validation is None for val_ratio 0).

    The action is the joint positions to reach. Observations get the noise of the environment, drawn once.

    Args:
        zarr_path: replay buffer with obs [N, 30], joint positions without noise, and action [N, 9].
        noise_ratio: scale of the observation noise; 0: none.
    """
    buffer = ReplayBuffer.from_zarr(zarr_path, ("obs", "action"), HINT)
    positions, action = (np.asarray(buffer.data[name], dtype=np.float32) for name in ("obs", "action"))
    if positions.shape[1:] != (N_QPOS,) or action.shape[1:] != (ACTION_DIM,):
        raise DatasetError(
            f"{zarr_path} holds observations {list(positions.shape)} and actions {list(action.shape)} instead of "
            f"[N, {N_QPOS}] and [N, {ACTION_DIM}]: these are not scripted Kitchen demonstrations. {HINT}"
        )
    episodes = [(positions[rows], action[rows]) for rows in map(buffer.episode, range(buffer.n_episodes))]
    return _split(episodes, noise_ratio, windows)


def _split(episodes: Sequence[Episode], noise_ratio: float, windows: Windows) -> Datasets:
    """Lays `episodes` end to end, adds noise to the joint positions and cuts windows.

    The noise is drawn once and not for every fetched window: a data set does not know the training step, on which alone
    (and the seed) a batch may depend, so that a resumed training repeats it.
    """
    positions, action = (np.concatenate(values) for values in zip(*episodes))
    noise = noise_ratio * NOISE_AMPLITUDE * np.random.default_rng(windows.seed).uniform(-1.0, 1.0, size=positions.shape)
    obs = np.zeros((len(positions), OBS_DIM), dtype=np.float32)
    obs[:, :N_QPOS] = positions + noise
    buffer = ReplayBuffer({"obs": obs, "action": action}, np.cumsum([len(values) for values, _ in episodes]))
    fields = {name: torch.from_numpy(values) for name, values in buffer.data.items()}
    normalizers = {"obs": FieldNormalizer.fit(fields["obs"], range_eps=OBS_RANGE_EPS)}
    return windows.split(partial(SequenceDataset, fields, normalizers=normalizers), buffer)
