"""Motions of the robomimic environments for their tests."""

import numpy as np

from diffusion_policy.common.rotation import matrix_to_rotation_6d


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
