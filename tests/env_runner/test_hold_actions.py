"""The action with which each benchmark's robot stands still."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.env_runner.contract import hold_action


def drift(env, position, steps=10):
    """How far the robot gets from where an episode starts while it is held."""
    env.reset(seed=100_000)
    before, largest, last = position(env), 0.0, None
    for _ in range(steps):
        last = hold_action(env, last)
        env.step(last)
        largest = max(largest, np.abs(position(env) - before).max())
    return largest


def test_push_t_aims_for_where_it_is():
    pytest.importorskip("pymunk")
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

    env = PushTKeypointsEnv()
    assert drift(env, lambda env: np.array(env.agent.position)) < 1e-9
    target = np.array([250.0, 260.0])
    assert np.array_equal(hold_action(env, target), target)


@pytest.mark.parametrize("abs_action", [True, False])
def test_block_pushing_leaves_its_target(abs_action):
    pytest.importorskip("pybullet")
    from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv

    env = BlockPushingEnv(abs_action=abs_action)
    effector = lambda env: env.scene.effector_xy()
    assert drift(env, effector) < 1e-3
    env.reset(seed=100_000)
    aim = env.effector_target + 0.02
    env.step(aim if abs_action else np.full(2, 0.02))
    target = env.effector_target
    env.step(hold_action(env, aim if abs_action else np.full(2, 0.02)))
    assert np.allclose(env.effector_target, target)  # a change is not repeated
    env.close()


def test_the_kitchens_arm_keeps_its_joints():
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium_robotics")
    from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv

    env = KitchenEnv(abs_action=True)
    assert drift(env, lambda env: env.data.qpos[:9].copy()) < 0.05  # rad; the arm sags until its controller holds it
    assert not KitchenEnv(abs_action=False).hold_action(np.ones(9)).any()


@pytest.mark.parametrize("abs_action", [True, False])
def test_robomimics_arm_keeps_its_pose_and_its_gripper(abs_action):
    pytest.importorskip("robosuite")
    from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv

    env = RobomimicEnv("lift", image=False, abs_action=abs_action)

    def pose(env):
        (robot,) = env.simulation.robots
        robot.controller.update(force=True)
        fingers = env.simulation.sim.data.qpos[robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([robot.controller.ee_pos, robot.controller.ee_ori_mat.ravel(), fingers])

    assert drift(env, pose) < 1e-3
    closing = np.append(hold_action(env, None)[:-1], 1.0)
    env.step(closing)
    assert hold_action(env, closing)[-1] == 1.0  # what is gripped stays gripped
    env.close()
