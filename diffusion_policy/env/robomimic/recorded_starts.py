"""robomimic episodes that start where the human demonstrations did."""
from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gymnasium
import numpy as np

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from diffusion_policy.env.robomimic.simulation import EXTRA


class RecordedStarts(gymnasium.Wrapper):
    """Resets with seed i, if it is one of `seeds`, to the state in which demonstration i started; else as `env` does.

    Args:
        path: a data file of robomimic, see `initial_state`.
    """

    def __init__(self, env: RobomimicEnv, path: str | Path, seeds: Collection[int]):
        super().__init__(env)
        self.path, self.seeds = Path(path), seeds

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray | dict, dict]:
        start = {"state": initial_state(self.path, seed)} if seed in self.seeds else {}
        return self.env.reset(seed=seed, options={**start, **(options or {})})


def initial_state(path: str | Path, index: int) -> np.ndarray:
    """The first state [1 + nq + nv] of demonstration `index` of an HDF5 file: `data/demo_<index>/states` [T, 1 + nq + nv].

    Raises:
        DatasetError: the file is missing or unreadable, or does not hold that.
    """
    h5py = import_extra("h5py", EXTRA)
    name = f"data/demo_{index}/states"
    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise DatasetError(f"{path} holds no {name}: it has fewer demonstrations, or is no data file of robomimic")
            return np.asarray(file[name][0], dtype=np.float64)
    except OSError as error:
        raise DatasetError(f"cannot read the demonstrations in {path}: {error}") from error
