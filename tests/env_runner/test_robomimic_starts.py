"""Episodes of robomimic that start where recorded demonstrations did."""

import numpy as np
import pytest

pytest.importorskip("robosuite")
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from diffusion_policy.env_runner.robomimic_starts import RecordedStarts
from tests.env.robomimic_play import lifted

SEED = 100_000  # none of the recorded ones


@pytest.fixture(scope="module")
def lift():
    env = RobomimicEnv("lift", image=False)
    yield env
    env.close()


@pytest.mark.slow
def test_episodes_start_where_demonstrations_did(lift, tmp_path):
    h5py = pytest.importorskip("h5py")
    lift.reset(seed=5)
    state = lifted(lift.state())
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        file["data/demo_1/states"] = np.stack([state, np.zeros_like(state)])
    env = RecordedStarts(lift, tmp_path / "demos.hdf5", range(3))
    recorded, _ = env.reset(seed=1)
    np.testing.assert_array_equal(lift.state(), state)
    np.testing.assert_array_equal(env.reset(seed=1)[0], recorded)
    np.testing.assert_array_equal(env.reset(seed=SEED)[0], lift.reset(seed=SEED)[0])
    with pytest.raises(DatasetError, match="no data/demo_2/states"):
        env.reset(seed=2)
    with pytest.raises(DatasetError, match="cannot read the demonstrations"):
        RecordedStarts(lift, tmp_path / "missing.hdf5", range(3)).reset(seed=0)
