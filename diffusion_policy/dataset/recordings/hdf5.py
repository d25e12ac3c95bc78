"""Recordings in HDF5 as robomimic lays them out: data/demo_<i>/obs/<name> [T, ...] and data/demo_<i>/actions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.hdf5_files import members, open_group
from diffusion_policy.dataset.recordings.contract import ACTION, Field, starts
from diffusion_policy.dataset.robomimic_files import demo_array, demo_names, open_demonstrations, readable


class Hdf5Recording:
    """See `Recording`. The file is open only while it is read.

    Raises:
        DatasetError: it is missing, damaged, of another layout, or its demonstrations hold different things.
    """

    kind = "HDF5 in robomimic's layout"
    window_steps = None

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with open_demonstrations(self.path) as file, readable(self.path):
            self._demos = demo_names(file, self.path)
            self._places = self._find(file)
            arrays = {name: demo_array(file, self._demos[0], place, None, self.path) for name, place in self._places}
            self.fields = {
                name: Field(tuple(arrays[name].shape[1:]), np.dtype(arrays[name].dtype), f"data/demo_*/{place}")
                for name, place in self._places
            }
            shortest = min(self._places, key=lambda item: int(np.prod(self.fields[item[0]].shape)))[1]
            self.lengths = [len(demo_array(file, demo, shortest, None, self.path)) for demo in self._demos]
        if 0 in self.lengths:
            raise DatasetError(f"{self.path}: {self._demos[self.lengths.index(0)]} has no rows: remove it")

    def _find(self, file) -> list[tuple[str, str]]:
        """(name, place below a demonstration) of what the first demonstration holds."""
        demo = open_group(file, f"data/{self._demos[0]}", self.path)
        there = members(demo)
        if "obs" not in there:
            raise DatasetError(
                f"{self.path}: {self._demos[0]} has no group obs with the observations, but {', '.join(there)}: store "
                "them as data/demo_0/obs/<name>"
            )
        observed = [(name, f"obs/{name}") for name in sorted(members(open_group(demo, "obs", self.path)))]
        return observed + [(ACTION, name) for name in ("actions",) if name in there]

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        field, place, first = self.fields[name], dict(self._places)[name], starts(self)
        values = np.empty((len(rows), *field.shape), field.dtype)
        episodes = np.searchsorted(first, rows, side="right") - 1
        with open_demonstrations(self.path) as file, readable(self.path):
            for episode in np.unique(episodes):
                demo, mine = self._demos[episode], episodes == episode
                array = demo_array(file, demo, place, field.shape, self.path)
                if len(array) != self.lengths[episode]:
                    raise DatasetError(
                        f"{self.path}: {demo}/{place} has {len(array)} rows, and others of {demo} "
                        f"{self.lengths[episode]}: it is damaged"
                    )
                values[mine] = array[rows[mine] - first[episode]]
        return values
