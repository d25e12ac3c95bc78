"""robomimic episodes that start where the human demonstrations did."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gymnasium
import numpy as np

from diffusion_policy.dataset.numbers import require_finite
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_files import demo_array, demo_names, open_demonstrations, readable
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv


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
    """The first state [1 + nq + nv] of demonstration `index` of an HDF5 file: `data/demo_<index>/states` [T, 1 + nq +
    nv].

    Raises:
        DatasetError: the file is missing or unreadable, or does not hold that.
    """
    try:
        with open_demonstrations(path) as file, readable(path):
            if f"demo_{index}" not in demo_names(file, path):
                raise DatasetError(
                    f"it holds no data/demo_{index}/states: it has fewer demonstrations, or is no data file of "
                    "robomimic"
                )
            states = demo_array(file, f"demo_{index}", "states", None, path)
            if states.ndim != 2 or len(states) == 0:
                raise DatasetError(
                    f"demo_{index}/states is {list(states.shape)} instead of [T, 1 + nq + nv] with T >= 1"
                )
            start = np.asarray(states[0], dtype=np.float64)
        require_finite(path, f"demo_{index}/states", start[None])
    except DatasetError as error:
        raise DatasetError(f"cannot read the demonstrations in {path}: {error}") from error
    return start
