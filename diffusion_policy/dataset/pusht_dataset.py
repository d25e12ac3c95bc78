"""Human Push-T demonstrations (206 episodes, 25,650 steps at 10 Hz) as keypoint observations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import SequenceDataset, Windows

DOWNLOAD_HINT = "Get the human demonstrations with: bac data download task=pusht_lowdim"
SHAPES = {"keypoint": (9, 2), "state": (5,), "action": (2,)}  # of a row


def require_rows(path: str | Path, buffer: ReplayBuffer, shapes: Mapping[str, tuple[int, ...]], hint: str) -> None:
    """Raises DatasetError unless the rows of the arrays are of the given shapes."""
    for name, shape in shapes.items():
        if buffer.data[name].shape[1:] != shape:
            raise DatasetError(
                f"{path} holds {name!r} {list(buffer.data[name].shape)} instead of {['N', *shape]}: "
                f"it is not Push-T. {hint}"
            )


def load_pusht_lowdim(
    zarr_path: str | Path,
    windows: Windows,
) -> tuple[SequenceDataset, SequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0).

    Observation [20]: the nine block keypoints (x, y) and the agent position, in pixels of the 512 x 512 field.
    Action [2]: target position of the agent, in pixels.
    """
    buffer = ReplayBuffer.from_zarr(zarr_path, tuple(SHAPES), DOWNLOAD_HINT)
    require_rows(zarr_path, buffer, SHAPES, DOWNLOAD_HINT)
    keypoints = buffer.data["keypoint"].reshape(len(buffer.data["keypoint"]), -1)  # [N, 18]
    fields = {
        "obs": torch.from_numpy(np.concatenate([keypoints, buffer.data["state"][:, :2]], axis=-1)),
        "action": torch.from_numpy(buffer.data["action"]),
    }
    return windows.split(partial(SequenceDataset, fields), buffer)
