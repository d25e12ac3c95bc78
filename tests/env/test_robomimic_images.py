"""The robomimic tasks with images: what is drawn, when, and that it is what robosuite's own cameras see."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("robosuite")
from diffusion_policy.env.robomimic.definition import TASKS, to_robot_action
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from tests.conftest import ROOT
from tests.env.robomimic_play import hold, play

SEED = 100_000
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lift_image():
    env = RobomimicEnv("lift")
    yield env
    env.close()


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
