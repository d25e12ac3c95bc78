"""Recorded observations as a policy gets them: an .npz file with an array [N, To, ...] for each of its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.numpy_files import read_npz
from diffusion_policy.dataset.recordings.contract import Field


class NpzRecording:
    """See `Recording`; a window counts as an episode of To rows.

    Raises:
        DatasetError: it is missing, damaged, or its arrays are not windows of one number.
    """

    kind = "windows in .npz"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._arrays = read_npz(self.path)
        listed = ", ".join(f"{name} {list(values.shape)}" for name, values in self._arrays.items()) or "nothing"
        if not self._arrays or any(values.ndim < 2 or 0 in values.shape for values in self._arrays.values()):
            raise DatasetError(
                f"{self.path} holds {listed}: give an array [N, To, ...] for each of the policy's inputs"
            )
        sizes = {values.shape[:2] for values in self._arrays.values()}
        if len(sizes) > 1:
            raise DatasetError(
                f"{self.path} holds {listed}: all arrays need the same number of windows N and of observation steps To"
            )
        windows, self.window_steps = sizes.pop()
        self.lengths = [self.window_steps] * windows
        self.fields = {
            name: Field(values.shape[2:], values.dtype, f"{name} [N, To, ...]") for name, values in self._arrays.items()
        }

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        values = self._arrays[name]
        return values.reshape(-1, *values.shape[2:])[rows]
