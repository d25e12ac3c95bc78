"""What the robomimic tasks are, and what happens where their simulator is missing."""

import json
import os
import sys

import numpy as np
import pytest

from diffusion_policy.common.rotation import axis_angle_to_matrix, matrix_to_rotation_6d
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import RenderingError
from diffusion_policy.env.robomimic import simulation
from diffusion_policy.env.robomimic.definition import TASKS, env_metadata, task_named, to_policy_action, to_robot_action


@pytest.mark.parametrize(
    "name, obs_dim, action_dim, cameras, size",
    [
        ("lift", 19, 10, ["agentview", "robot0_eye_in_hand"], 84),
        ("can", 23, 10, ["agentview", "robot0_eye_in_hand"], 84),
        ("square", 23, 10, ["agentview", "robot0_eye_in_hand"], 84),
        ("transport", 59, 20, ["shouldercamera0", "robot0_eye_in_hand", "shouldercamera1", "robot1_eye_in_hand"], 84),
        ("tool_hang", 53, 10, ["sideview", "robot0_eye_in_hand"], 240),
    ],
)
def test_published_sizes(name, obs_dim, action_dim, cameras, size):
    task = task_named(name)
    assert (task.obs_dim, task.action_dim(True), task.action_dim(False)) == (obs_dim, action_dim, action_dim * 7 // 10)
    images = {key: shape for key, shape in task.image_shapes.items() if key.endswith("_image")}
    assert images == {f"{camera}_image": (3, size, size) for camera in cameras}
    vectors = sum(np.prod(shape) for key, shape in task.image_shapes.items() if key not in images)
    assert vectors == 9 * task.n_arms == obs_dim - task.object_dim


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no robomimic task 'stack'; there are lift, can"):
        task_named("stack")


@pytest.mark.parametrize("n_arms", [1, 2])
def test_actions_change_between_policy_and_robot(n_arms):
    generator = np.random.default_rng(0)
    robot = generator.uniform(-1, 1, (5, 3, 7 * n_arms))
    policy = to_policy_action(robot)
    assert policy.shape == (5, 3, 10 * n_arms)
    np.testing.assert_allclose(to_robot_action(policy), robot, atol=1e-12)
    last = policy[..., -10:]
    np.testing.assert_array_equal(last[..., [0, 1, 2, 9]], robot[..., -7:][..., [0, 1, 2, 6]])
    np.testing.assert_allclose(last[0, 0, 3:9], matrix_to_rotation_6d(axis_angle_to_matrix(robot[0, 0, -4:-1])))


@pytest.mark.parametrize("action", [np.zeros(9), np.zeros(0), 3.0])
def test_actions_of_a_wrong_size_are_refused(action):
    with pytest.raises(ValueError, match="10 numbers per arm"):
        to_robot_action(action)


def test_the_metadata_is_that_of_the_data_files():
    metadata = json.loads(json.dumps(env_metadata(TASKS["transport"], abs_action=True)))
    assert metadata["env_name"] == "TwoArmTransport" and metadata["type"] == 1
    options = metadata["env_kwargs"]
    assert options["robots"] == ["Panda", "Panda"] and options["env_configuration"] == "single-arm-opposed"
    assert options["controller_configs"]["control_delta"] is False and options["control_freq"] == 20
    changes = env_metadata(TASKS["lift"], abs_action=False)["env_kwargs"]
    assert changes["controller_configs"]["control_delta"] is True and "env_configuration" not in changes


def test_a_missing_robosuite_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bac-workbench\[robomimic\]'"):
        simulation.import_robosuite()


def test_an_opengl_that_is_not_installed_is_named(monkeypatch):
    def fails(*_):
        raise AttributeError("'NoneType' object has no attribute 'glGetError'")

    monkeypatch.setattr(simulation, "import_extra", fails)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(RenderingError, match="MUJOCO_GL=osmesa.*libosmesa6"):
        simulation.import_robosuite()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_another_generation_of_robosuite_is_refused(monkeypatch):
    class Newer:
        __version__ = "1.5.1"

    monkeypatch.setattr(simulation, "import_extra", lambda *_: Newer)
    with pytest.raises(ImportError, match=r"robosuite 1\.5\.1 .*pip install 'bac-workbench\[robomimic\]'"):
        simulation.import_robosuite()


def test_nobody_elses_random_numbers_change():
    np.random.seed(7)
    expected = np.random.rand(2)
    np.random.seed(7)
    own = np.random.RandomState(3)
    assert np.random.rand() == expected[0]
    with simulation.global_random_state(own):
        drawn = np.random.rand(2)
    assert np.random.rand() == expected[1]
    np.testing.assert_array_equal(drawn, np.random.RandomState(3).rand(2))
    assert own.rand() == np.random.RandomState(3).rand(3)[2]
