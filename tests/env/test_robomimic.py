"""The robomimic tasks: how episodes start, what actions do, what is observed and drawn, what is rewarded."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("robosuite")

from diffusion_policy.common.rotation import matrix_to_rotation_6d
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.offscreen import RenderingError
from diffusion_policy.env.robomimic.definition import TASKS, to_robot_action
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from diffusion_policy.env_runner.robomimic_starts import RecordedStarts
from tests.conftest import ROOT

SEED = 100_000
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lift():
    env = RobomimicEnv("lift", image=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def lift_image():
    env = RobomimicEnv("lift")
    yield env
    env.close()


def hold(env, offset=(0.0, 0.0, 0.0), gripper=-1.0):
    """Absolute action [10 per arm]: where the grippers are, plus `offset`."""
    arms = [robot.controller for robot in env.simulation.robots]
    return np.concatenate([[*(arm.ee_pos + offset), *matrix_to_rotation_6d(arm.ee_ori_mat), gripper] for arm in arms])


def play(env, seed, n_steps=3):
    """The first observations of an episode in which the grippers go 2 cm down."""
    obs, _ = env.reset(seed=seed)
    action, observations = hold(env, (0, 0, -0.02)), [obs]
    for _ in range(n_steps):
        observations.append(env.step(action)[0])
    return observations


def lifted(state):
    """A state of Lift, changed so that the cube is 20 cm above the table."""
    state = state.copy()
    state[1 + 7 + 2 + 2] += 0.2  # time, arm, fingers, then the cube's position
    return state


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


@slow
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


@slow
def test_images_are_drawn_on_demand_and_change_nothing_else(lift_image):
    seen = play(lift_image, SEED)
    lift_image.frames = False
    unseen = play(lift_image, SEED)
    lift_image.frames = True
    assert all(lift_image.observation_space.contains(obs) for obs in [*seen, *unseen])
    for key, shape in TASKS["lift"].image_shapes.items():
        for with_frames, without in zip(seen, unseen, strict=True):
            assert with_frames[key].shape == shape and with_frames[key].dtype == np.float32
            if key.endswith("_image"):
                assert not without[key].any() and 0.2 < with_frames[key].mean() < 0.95 and with_frames[key].max() > 0.9
            else:
                np.testing.assert_array_equal(with_frames[key], without[key])
        assert not np.array_equal(seen[0][key], seen[-1][key]) or key == "robot0_gripper_qpos"
    frame = lift_image.render()
    assert frame.shape == (240, 240, 3) and frame.dtype == np.uint8 and frame.std() > 10


@slow
@pytest.mark.parametrize("name", ["lift", "can", "tool_hang"])
def test_what_is_not_drawn_would_not_be_seen(name):
    """Every pixel is as with everything drawn, wherever the cameras look."""
    env = RobomimicEnv(name)
    env.reset(seed=SEED)
    rng, skipped = np.random.default_rng(0), []
    for camera in env.task.camera_names:
        for offset in rng.uniform(-0.1, 0.1, (3, 3)):
            env.frames = False
            env.step(hold(env, offset))
            cameras = env._camera((84, 60))
            sooner = cameras.image(env._data, camera).copy()
            skipped.append(
                sum(
                    geom.type == env._mujoco.mjtGeom.mjGEOM_LABEL
                    for geom in cameras._renderer.scene.geoms[: cameras._renderer.scene.ngeom]
                )
            )
            cameras._leaves_out = False
            assert np.array_equal(sooner, cameras.image(env._data, camera))
            cameras._leaves_out = True
    assert min(skipped) > 5
    env.close()


@slow
def test_two_environments_of_a_process_draw_their_own_scenes(lift_image):
    alone = play(lift_image, SEED, n_steps=1)
    other = RobomimicEnv("lift", reflections=True)
    assert (lift_image.metadata["reflections"], other.metadata["reflections"]) == (False, True)
    shiny, _ = other.reset(seed=SEED)
    lift_image.reset(seed=SEED)
    other.reset(seed=SEED + 1)
    again, *_ = lift_image.step(hold(lift_image, (0, 0, -0.02)))
    np.testing.assert_array_equal(again["agentview_image"], alone[1]["agentview_image"])
    difference = {key: np.abs(shiny[key] - alone[0][key]).mean() for key in shiny}
    assert difference.pop("agentview_image") > 1e-3 and set(difference.values()) == {0.0}
    other.close()


# What robosuite's own cameras observe when an environment is made as robomimic makes it.
ROBOSUITE_IMAGES = """
import sys, numpy as np
from diffusion_policy.env.robomimic.definition import TASKS, env_metadata
from diffusion_policy.env.robomimic.simulation import import_robosuite
task = TASKS["lift"]
options = {**env_metadata(task, True)["env_kwargs"], "has_offscreen_renderer": True, "use_camera_obs": True}
np.random.seed(0)
env = import_robosuite().make(task.robosuite_name, **options)
env.hard_reset = False
np.random.seed(100_000)
env.reset()
obs, *_ = env.step(np.array(eval(sys.argv[1])))
np.savez(sys.argv[2], **{key: obs[key][::-1] if key.endswith("_image") else obs[key] for key in task.image_shapes})
"""


@slow
def test_observations_are_those_of_robosuite_itself(tmp_path):
    env = RobomimicEnv("lift", reflections=True)
    env.reset(seed=SEED)
    action = hold(env, (0.01, 0, -0.03), gripper=1.0)
    obs, *_ = env.step(action)
    env.close()
    arguments = [str(to_robot_action(action).tolist()), str(tmp_path / "obs.npz")]
    subprocess.run([sys.executable, "-c", ROBOSUITE_IMAGES, *arguments], check=True, cwd=ROOT)
    with np.load(tmp_path / "obs.npz") as expected:
        for key, value in obs.items():
            if key.endswith("_image"):
                np.testing.assert_array_equal(np.round(np.moveaxis(value, 0, -1) * 255), expected[key])
            else:
                np.testing.assert_allclose(value, expected[key], atol=1e-6)


@slow
@pytest.mark.parametrize("name", [name for name in TASKS if name != "lift"])
def test_every_task_runs_with_and_without_images(name):
    task = TASKS[name]
    lowdim, image = RobomimicEnv(name, image=False), RobomimicEnv(name)
    vector, named = play(lowdim, SEED, n_steps=1), play(image, SEED, n_steps=1)
    for obs in vector:
        assert lowdim.observation_space.contains(obs) and np.isfinite(obs).all()
    for obs in named:
        assert image.observation_space.contains(obs)
        assert all(obs[f"{camera}_image"].std() > 0.02 for camera in task.camera_names)
    if not task.random_sizes:  # whose draws come before those of the robot's pose
        np.testing.assert_array_equal(named[0]["robot0_eef_pos"], vector[0][task.object_dim : task.object_dim + 3])
    assert image.render().shape == (240, 240, 3)
    for env in (lowdim, image):
        assert env.step(hold(env))[1:] == (0.0, False, False, {"is_success": False, "metrics": {}})
        env.close()
