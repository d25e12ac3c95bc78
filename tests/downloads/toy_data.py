"""A small replay buffer, and where it lies in an archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from diffusion_policy.dataset.replay_buffer import ReplayBuffer

KEYS = ("keypoint", "state", "action")
FOLDER = "toy/replay.zarr"


def toy_buffer() -> ReplayBuffer:
    rows = np.arange(12, dtype=np.float32)
    data = {"keypoint": rows.reshape(6, 1, 2), "state": rows[:6, None], "action": rows.reshape(6, 2)}
    return ReplayBuffer(data, np.array([2, 6]))


def write_zarr(path: Path, buffer: ReplayBuffer, chunk: int = 3) -> None:
    zarr.open_group(str(path), mode="w")
    for name, values in [
        *((f"data/{k}", v) for k, v in buffer.data.items()),
        ("meta/episode_ends", buffer.episode_ends),
    ]:
        array = zarr.open_array(
            str(path / name), mode="w", shape=values.shape, dtype=values.dtype, chunks=(chunk, *values.shape[1:])
        )
        array[:] = values
