"""Episodes of Kitchen that start where the human demonstrations did."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.kitchen.definition import INITIAL_QPOS
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv
from diffusion_policy.env_runner.kitchen_starts import RecordedStarts


@pytest.fixture
def env():
    env = KitchenEnv()
    yield env
    env.close()


def test_recorded_starts(tmp_path, env):
    qpos, qvel = np.tile(INITIAL_QPOS, (3, 1)), np.zeros((3, 29))
    qpos[:, 0] += np.arange(3)
    np.save(tmp_path / "all_init_qpos.npy", qpos)
    np.save(tmp_path / "all_init_qvel.npy", qvel)
    recorded = RecordedStarts(env, tmp_path, range(3))
    recorded.reset(seed=2)
    assert env.data.qpos[0] == qpos[2, 0]
    recorded.reset(seed=100_000)
    np.testing.assert_array_equal(env.data.qpos, INITIAL_QPOS)
    (tmp_path / "all_init_qvel.npy").unlink()
    with pytest.raises(DatasetError, match="bac data download task=kitchen_lowdim"):
        RecordedStarts(env, tmp_path, range(3))
