"""Block Pushing in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np

from diffusion_policy.env.block_pushing.definition import ACTION_DIM, EFFECTOR_TARGET, OBS_DIM, total_reward
from diffusion_policy.env_runner.task import TaskAdapter


def make_block_pushing_env(abs_action: bool, render_size: tuple[int, int]) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv

    return BlockPushingEnv(abs_action=abs_action, render_size=render_size)


def without_effector_target(observation: np.ndarray) -> np.ndarray:
    """What the policy sees with `obs_eef_target` false: [16] -> [16] with zeros for the effector's target."""
    hidden = observation.copy()
    hidden[EFFECTOR_TARGET] = 0.0
    return hidden


def block_pushing_task(
    n_obs_steps: int = 3,
    n_action_steps: int = 1,
    n_latency_steps: int = 0,
    max_steps: int = 350,
    n_train: int = 6,
    train_start_seed: int = 0,
    n_test: int = 50,
    test_start_seed: int = 100_000,
    abs_action: bool = False,
    obs_eef_target: bool = True,
    video_size: tuple[int, int] = (240, 320),
    name: str = "block_pushing",
) -> TaskAdapter:
    """Multimodal Block Pushing. The score of an episode is the sum of its different rewards; metrics p1 and p2 say whether
    one block and whether both have reached a target, and p2 is success.

    Args:
        abs_action: actions are effector targets instead of changes of it.
        obs_eef_target: the policy sees the effector's target, as in the published results.
        video_size: height and width of the video frames, px, even.
    """
    return TaskAdapter(
        name=name,
        make_env=partial(make_block_pushing_env, abs_action, tuple(video_size)),
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        n_obs_steps=n_obs_steps,
        n_action_steps=n_action_steps,
        n_latency_steps=n_latency_steps,
        max_steps=max_steps,
        n_train=n_train,
        train_start_seed=train_start_seed,
        n_test=n_test,
        test_start_seed=test_start_seed,
        policy_observation=None if obs_eef_target else without_effector_target,
        score=total_reward,
        extra="blockpush",
        packages=("pybullet",),
    )
