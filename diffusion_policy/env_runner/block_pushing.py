"""Block Pushing in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np

from diffusion_policy.env.block_pushing.definition import ACTION_DIM, EFFECTOR_TARGET, OBS_DIM, total_reward
from diffusion_policy.env_runner.task import Environment, Requirements


def make_block_pushing_env(abs_action: bool, render_size: tuple[int, int]) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv

    return BlockPushingEnv(abs_action=abs_action, render_size=render_size)


def without_effector_target(observation: np.ndarray) -> np.ndarray:
    """What the policy sees with `obs_eef_target` false: [16] -> [16] with zeros for the effector's target."""
    hidden = observation.copy()
    hidden[EFFECTOR_TARGET] = 0.0
    return hidden


def block_pushing_environment(
    max_steps: int = 350,
    abs_action: bool = False,
    obs_eef_target: bool = True,
    video_size: tuple[int, int] = (240, 320),
) -> Environment:
    """Multimodal Block Pushing. The score of an episode is the sum of its different rewards; metrics p1 and p2 say
    whether one block and whether both have reached a target, and p2 is success.

    Args:
        abs_action: actions are effector targets instead of changes of it.
        obs_eef_target: the policy sees the effector's target, as in the published results.
        video_size: height and width of the video frames, px, even.
    """
    return Environment(
        make=partial(make_block_pushing_env, abs_action, tuple(video_size)),
        action_dim=ACTION_DIM,
        max_steps=max_steps,
        obs_dim=OBS_DIM,
        policy_observation=None if obs_eef_target else without_effector_target,
        score=total_reward,
        requirements=Requirements(("pybullet",), extra="blockpush"),
    )
