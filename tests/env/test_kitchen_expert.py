"""The scripted expert does each task of the kitchen, and only that, from the benchmark's initial state."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")

from diffusion_policy.env.kitchen.definition import CONTROL_HIGH, CONTROL_LOW, INITIAL_QPOS, TASKS, is_complete
from diffusion_policy.env.kitchen.expert import KitchenExpert
from diffusion_policy.env.kitchen.inverse_kinematics import InverseKinematics, Pose, UnreachableError
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv
from diffusion_policy.env.kitchen.model import load_model
from diffusion_policy.env.kitchen.subtasks import NOMINAL, SUBTASKS

ARM = INITIAL_QPOS[:7]


@pytest.fixture(scope="module")
def env():
    env = KitchenEnv(noise_ratio=0.0)
    yield env
    env.close()


def do(env, expert, task):
    actions = expert.plan(task)
    assert (actions >= CONTROL_LOW).all() and (actions <= CONTROL_HIGH).all()
    for action in actions:
        env.step(action)
    return len(actions)


@pytest.mark.parametrize("task", SUBTASKS)
def test_each_task_alone(env, task):
    assert task in TASKS
    env.reset(seed=0)
    steps = do(env, KitchenExpert(env), task)
    assert env.completed.order == [task] and steps <= 80


def test_no_task_undoes_another(env):
    env.reset(seed=0)
    expert = KitchenExpert(env)
    for task in SUBTASKS:
        do(env, expert, task)
    assert env.completed.order == list(SUBTASKS)
    assert all(is_complete(task, env.data.qpos) for task in SUBTASKS)


def test_the_arm_arrives_where_it_was_planned_to(env):
    """Though the servos would hang through by the weight of the arm."""
    env.reset(seed=0)
    last = SUBTASKS["light switch"](env.data, NOMINAL)[-1].pose
    do(env, KitchenExpert(env), "light switch")
    kinematics = InverseKinematics(env.model)
    assert np.linalg.norm(kinematics.tip(env.data.qpos[:7])[0] - last.position) < 0.01
    assert np.linalg.norm(kinematics.tip(env.data.ctrl[:7])[0] - last.position) > 0.02


def test_kinematics_reach_a_pose_and_its_rotation():
    kinematics = InverseKinematics(load_model())
    pose = Pose(np.array([-0.4, 0.4, 2.1]), yaw=-0.2, pitch=0.3, roll=0.5)
    arm = kinematics.solve(pose, ARM, ARM)
    position, rotation = kinematics.tip(arm)
    assert (arm >= kinematics.low).all() and (arm <= kinematics.high).all()
    np.testing.assert_allclose(position, pose.position, atol=2e-3)
    np.testing.assert_allclose(rotation, pose.rotation(), atol=0.01)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    assert rotation[2, 2] == pytest.approx(-np.sin(0.3), abs=0.01)  # tilted down


def test_kinematics_refuse_what_is_out_of_reach():
    with pytest.raises(UnreachableError, match="misses"):
        InverseKinematics(load_model()).solve(Pose(np.array([0.0, 3.0, 2.0])), ARM, ARM)


def test_planning_leaves_the_simulation_alone(env):
    env.reset(seed=0)
    before = env.data.qpos.copy()
    KitchenExpert(env).plan("microwave")
    np.testing.assert_array_equal(env.data.qpos, before)
