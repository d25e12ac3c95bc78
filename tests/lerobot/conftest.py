"""Recorded episodes of a toy with a camera, and data sets of them; collections of a tiny Push-T policy."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

pytest.importorskip("pyarrow")

from bac_workbench.lerobot.export import write_lerobot
from bac_workbench.settings import check
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env_runner.recording import Record, RecordingEnv, record_folder
from tests.tiny_policy import CONFIG, save_tiny_policy

LENGTHS = (5, 3, 4)


class Lamp(gymnasium.Env):
    """Shows two vectors and an image [3, 16, 16] that gets brighter with every step of every episode."""

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.seed, self.t = seed, 0
        return self.shown(), {}

    def step(self, action):
        self.t += 1
        return self.shown(), float(self.t), self.t == LENGTHS[self.seed], False, {"is_success": self.t == 3}

    def shown(self):
        step = self.t + sum(LENGTHS[: self.seed])
        return {"arm": np.full(3, 10 * step) + np.arange(3), "eye": np.full((3, 16, 16), step / 17), "grip": [step]}


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> list[Path]:
    """Three episodes of `Lamp`; action t is [-t, t] of its episode."""
    folder = tmp_path_factory.mktemp("records")
    env = RecordingEnv(Lamp(), folder, 10, 100, scene=False)
    for seed, length in enumerate(LENGTHS):
        env.reset(seed=seed)
        for t in range(length):
            env.step(np.array([-t, t], dtype=np.float32))
    return [record_folder(folder, seed) for seed in range(len(LENGTHS))]


@pytest.fixture
def dataset(records, tmp_path) -> Path:
    """A LeRobot data set of these episodes, to read or damage."""
    (tmp_path / "lamp").mkdir()
    write_lerobot(tmp_path / "lamp", records, 10.0, "switch the lamp on")
    return tmp_path / "lamp"


@pytest.fixture(scope="session")
def loaded(records) -> list[Record]:
    return [Record.load(path) for path in records]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random 2-layer policy for Push-T in this project's form."""
    return save_tiny_policy(tmp_path_factory.mktemp("checkpoint"), "pusht_lowdim", (0.0, 512.0), (0.0, 512.0), steps=4)


@pytest.fixture
def composed(checkpoint):
    """composed('train', 'dataset=lerobot', ...) -> its config for the tiny policy."""

    def make(command: str, *overrides: str):
        register_resolvers()
        with initialize_config_dir(CONFIG, version_base="1.3"):
            return compose(command, ["task=pusht_lowdim", "device=cpu", *overrides])

    return make


@pytest.fixture
def settings(composed, checkpoint, tmp_path):
    """settings('n_episodes=2', ...) -> those of a short collection of the tiny policy."""
    pytest.importorskip("pymunk")

    def make(*overrides: str):
        short = ["n_episodes=2", "n_envs=2", "n_workers=0", "threads=1", "cache=full", "task.environment.max_steps=12"]
        usual = [*short, f"checkpoint={checkpoint}", f"output_dir={tmp_path}/data", f"assets_dir={tmp_path}/assets"]
        return check(composed("collect", *usual, *overrides), "collect", [*overrides])

    return make
