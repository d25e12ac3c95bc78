"""Kitchen episodes that start where the human demonstrations did."""
from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np

from diffusion_policy.env.kitchen.definition import N_QPOS
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv

FILES = {"qpos": ("all_init_qpos.npy", N_QPOS), "qvel": ("all_init_qvel.npy", N_QPOS - 1)}


class RecordedStarts(gymnasium.Wrapper):
    """Resets with seed i to the state in which demonstration i started; with other seeds as `env` does.

    Args:
        folder: holds `all_init_qpos.npy` [K, 30] and `all_init_qvel.npy` [K, 29].
    """

    def __init__(self, env: KitchenEnv, folder: str | Path):
        super().__init__(env)
        self._states = {name: _read(Path(folder, file), width) for name, (file, width) in FILES.items()}
        if len({len(values) for values in self._states.values()}) != 1:
            raise ValueError(f"{folder}: {' and '.join(file for file, _ in FILES.values())} hold different numbers of "
                             "demonstrations; download the data set again")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        known = seed is not None and 0 <= seed < len(self._states["qpos"])
        start = {name: values[seed] for name, values in self._states.items()} if known else {}
        return self.env.reset(seed=seed, options={**start, **(options or {})})


def _read(path: Path, width: int) -> np.ndarray:
    hint = "Download the human demonstrations, or set task.adapter.initial_states=null"
    try:
        values = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise FileNotFoundError(f"cannot read the recorded starts {path} ({error}). {hint}") from error
    if values.ndim != 2 or values.shape[1] != width:
        raise ValueError(f"{path} holds an array {list(values.shape)} instead of [K, {width}]. {hint}")
    return values
