"""The robomimic tasks: how episodes start, what actions do, what is observed and drawn, what is rewarded."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("robosuite")

from diffusion_policy.env.offscreen import RenderingError
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from tests.conftest import ROOT
from tests.env.robomimic_play import hold, lifted, play

SEED = 100_000
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lift():
    env = RobomimicEnv("lift", image=False)
    yield env
    env.close()


@slow
def test_an_episode_repeats_bitwise_and_seeds_differ(lift):
    first = play(lift, SEED)
    other = play(lift, SEED + 1)
    np.testing.assert_array_equal(play(lift, SEED), first)
    assert not np.array_equal(other[0], first[0])
    fresh = RobomimicEnv("lift", image=False)
    np.testing.assert_array_equal(play(fresh, SEED), first)
    fresh.close()


@slow
def test_resets_without_a_seed_go_on_from_the_last(lift):
    lift.reset(seed=3)
    second, _ = lift.reset()
    lift.reset(seed=3)
    np.testing.assert_array_equal(lift.reset()[0], second)
    assert not np.array_equal(lift.reset(seed=3)[0], second)


def test_a_lowdim_observation_is_poses_in_the_order_of_the_original(lift):
    obs, info = lift.reset(seed=SEED)
    sim = lift.simulation.sim
    assert obs.dtype == np.float32 and lift.observation_space.contains(obs)
    np.testing.assert_allclose(obs[:3], sim.data.body_xpos[sim.model.body_name2id("cube_main")], atol=1e-6)
    np.testing.assert_allclose(obs[7:10], obs[10:13] - obs[:3], atol=1e-6)  # from the cube to the gripper
    assert np.linalg.norm(obs[13:17]) == pytest.approx(1, abs=1e-5)
    assert obs[17] == -obs[18] > 0  # open fingers
    assert info == {"is_success": False, "metrics": {}}


def test_an_absolute_action_is_where_the_gripper_goes(lift):
    lift.reset(seed=SEED)
    action = hold(lift, (0.02, -0.03, 0.02))
    for _ in range(20):
        obs, reward, terminated, truncated, _ = lift.step(action)
    np.testing.assert_allclose(obs[10:13], action[:3], atol=5e-3)
    np.testing.assert_allclose(hold(lift)[3:9], action[3:9], atol=2e-2)
    assert (reward, terminated, truncated) == (0.0, False, False)


@slow
def test_a_relative_action_changes_the_pose_and_the_gripper():
    env = RobomimicEnv("lift", image=False, abs_action=False)
    before, _ = env.reset(seed=SEED)
    for _ in range(10):
        obs, *_ = env.step(np.array([0, 0, 0.5, 0, 0, 0, 1.0]))
    assert obs[12] - before[12] > 0.05 and np.abs(obs[10:12] - before[10:12]).max() < 0.01
    assert obs[17] < before[17] - 0.01  # closing
    env.close()


def test_the_lifted_cube_is_rewarded_and_ends_the_episode(lift):
    lift.reset(seed=SEED)
    obs, _ = lift.reset(seed=SEED, options={"state": lifted(lift.state())})
    np.testing.assert_allclose(obs[2], 1.02, atol=0.02)
    _, reward, terminated, truncated, info = lift.step(hold(lift))
    assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)


def test_an_opengl_that_does_not_work_is_named(lift, monkeypatch):
    def fails(*_):
        raise OSError("no display")

    lift.reset(seed=0)
    monkeypatch.setattr("mujoco.Renderer", fails)
    with pytest.raises(RenderingError, match="OSError: no display.*Install EGL"):
        lift.render()


# What happens where neither EGL nor OSMesa is installed, and there is no window system.
NO_OPENGL = """
import ctypes.util
find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name in ("EGL", "OSMesa") else find_library(name)
from diffusion_policy.env_runner.robomimic import robomimic_environment
from diffusion_policy.env_runner.task import Task
from diffusion_policy.env_runner.vector import EnvWorkerError
for image in (False, True):
    with Task("lift", robomimic_environment("lift", image=image)).vector_env(n_envs=1, n_workers=0) as env:
        env.reset(0, seed=0)
        try:
            print("observed", env.receive()[1].obs is not None)
        except EnvWorkerError as error:
            print("refused", str(error).splitlines()[0])
"""


@slow
def test_without_any_opengl_only_images_are_refused():
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, "-c", NO_OPENGL], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    lowdim, image = [line for line in result.stdout.splitlines() if line.startswith(("observed", "refused"))]
    assert (
        lowdim == "observed True" and "RenderingError: MuJoCo cannot draw (neither EGL nor OSMesa was found)" in image
    )
    assert "Install EGL (Debian: libegl1 libgl1-mesa-dri) or OSMesa (libosmesa6)" in image


def test_misuse_is_refused(lift):
    lift.reset(seed=0)
    with pytest.raises(ValueError, match="10 finite numbers"):
        lift.step(np.zeros(7))
    with pytest.raises(ValueError, match="10 finite numbers"):
        lift.step(np.full(10, np.nan))
    with pytest.raises(ValueError, match="zero or parallel"):
        lift.step(np.zeros(10))
    with pytest.raises(ValueError, match="unknown reset options"):
        lift.reset(options={"qpos": np.zeros(3)})
    with pytest.raises(ValueError, match="32 numbers, not"):
        lift.reset(options={"state": np.zeros(5)})
    with pytest.raises(ValueError, match="not finite"):
        lift.reset(options={"state": np.full(32, np.nan)})
    lift.close()
    with pytest.raises(RuntimeError, match="reset"):
        lift.step(np.zeros(10))
