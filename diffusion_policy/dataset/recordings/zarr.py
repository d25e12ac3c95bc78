"""Recordings as replay buffers in zarr: data/<name> [N, ...] and meta/episode_ends, in a folder or a zip archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.recordings.contract import ACTION, Field
from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.zarr_reader import ZarrFile


class ZarrRecording:
    """See `Recording`. Only the chunks with wanted rows are unpacked.

    Raises:
        DatasetError: it is missing, damaged, or no replay buffer.
    """

    kind = "replay buffer in zarr"
    window_steps = None

    def __init__(self, path: str | Path):
        self.path = Path(path)
        file = ZarrFile(self.path)
        ends = ReplayBuffer({}, file.read("meta/episode_ends")).episode_ends.astype(np.int64)
        self.lengths = np.diff(ends, prepend=0).tolist()
        self.fields: dict[str, Field] = {}
        self._places: dict[str, str] = {}
        for stored in sorted(file.array_names("data")):
            form = file.format(f"data/{stored}")
            if form.shape[:1] != (int(ends[-1]),):
                raise DatasetError(
                    f"{self.path}: data/{stored} is {list(form.shape)}, and the episodes end at row {int(ends[-1])}: "
                    "it is truncated, or not one value a row"
                )
            name = ACTION if stored == "actions" else stored
            self._places[name] = f"data/{stored}"
            self.fields[name] = Field(form.shape[1:], form.dtype.newbyteorder("="), f"data/{stored}")
        if not self.fields:
            raise DatasetError(f"{self.path} has no arrays in its group data: it is no replay buffer")

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        return ZarrFile(self.path).read_rows(self._places[name], rows)
