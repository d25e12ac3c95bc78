"""Franka Kitchen in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium

from diffusion_policy.env.kitchen.definition import ACTION_DIM, NOISE_RATIO, OBS_DIM, fraction_completed
from diffusion_policy.env_runner.task import Environment, Requirements


def make_kitchen_env(abs_action: bool, noise_ratio: float, render_size: tuple[int, int]) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv

    return KitchenEnv(abs_action, noise_ratio, render_size)


def start_as_recorded(folder: str, env: gymnasium.Env, seeds: range) -> gymnasium.Env:
    from diffusion_policy.env_runner.kitchen_starts import RecordedStarts

    return RecordedStarts(env, folder, seeds)


def kitchen_environment(
    max_steps: int = 280,
    abs_action: bool = True,
    robot_noise_ratio: float = NOISE_RATIO,
    initial_states: str | None = None,
    video_size: tuple[int, int] = (240, 360),
) -> Environment:
    """Franka Kitchen. The score of an episode is the share of the seven tasks it completes; metrics p1..p7 say whether
    it completed at least so many, and each task's own metric whether it completed that one. Success is p4.

    Args:
        abs_action: actions are joint positions instead of joint velocities.
        robot_noise_ratio: scale of the observation noise. Test episodes differ in nothing but its seed.
        initial_states: folder with the `all_init_qpos.npy` and `all_init_qvel.npy` of the human demonstrations: train
            seed i then starts where demonstration i did. Without it train episodes start like test episodes.
        video_size: height and width of the video frames, px, even.
    """
    return Environment(
        make=partial(make_kitchen_env, abs_action, robot_noise_ratio, tuple(video_size)),
        action_dim=ACTION_DIM,
        max_steps=max_steps,
        obs_dim=OBS_DIM,
        score=fraction_completed,
        requirements=Requirements(("mujoco", "gymnasium_robotics"), extra="kitchen"),
        recorded_starts=None if initial_states is None else partial(start_as_recorded, str(initial_states)),
    )
