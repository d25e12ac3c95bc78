"""Kitchen episodes that start where the human demonstrations did."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gymnasium
import numpy as np

from diffusion_policy.dataset.kitchen_files import initial_states
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv


class RecordedStarts(gymnasium.Wrapper):
    """Resets with seed i, if it is one of `seeds`, to the state in which human demonstration i started; else as `env`
    does.

    Args:
        folder: see `initial_states`, whose `DatasetError` it raises.
    """

    def __init__(self, env: KitchenEnv, folder: str | Path, seeds: Collection[int]):
        super().__init__(env)
        self.seeds = seeds
        self.qpos, self.qvel = initial_states(folder)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        is_recorded = seed in self.seeds and 0 <= seed < len(self.qpos)
        start = {"qpos": self.qpos[seed], "qvel": self.qvel[seed]} if is_recorded else {}
        return self.env.reset(seed=seed, options={**start, **(options or {})})
