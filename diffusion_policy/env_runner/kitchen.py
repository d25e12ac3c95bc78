"""Franka Kitchen in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gymnasium

from diffusion_policy.env.kitchen.definition import ACTION_DIM, NOISE_RATIO, OBS_DIM, fraction_completed
from diffusion_policy.env_runner.task import TaskAdapter


def make_kitchen_env(
    abs_action: bool, noise_ratio: float, render_size: tuple[int, int], initial_states: str | None
) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv

    env = KitchenEnv(abs_action, noise_ratio, render_size)
    if initial_states is None:
        return env
    from diffusion_policy.env_runner.kitchen_starts import RecordedStarts

    return RecordedStarts(env, initial_states)


def kitchen_task(
    n_obs_steps: int = 4,
    n_action_steps: int = 8,
    n_latency_steps: int = 0,
    max_steps: int = 280,
    n_train: int = 6,
    train_start_seed: int = 0,
    n_test: int = 50,
    test_start_seed: int = 100_000,
    abs_action: bool = True,
    robot_noise_ratio: float = NOISE_RATIO,
    initial_states: str | None = None,
    video_size: tuple[int, int] = (240, 360),
    name: str = "kitchen",
) -> TaskAdapter:
    """Franka Kitchen. The score of an episode is the share of the seven tasks it completes; metrics p1..p7 say whether it
    completed at least so many, and each task's own metric whether it completed that one. Success is p4.

    Args:
        abs_action: actions are joint positions instead of joint velocities.
        robot_noise_ratio: scale of the observation noise. Test episodes differ in nothing but its seed.
        initial_states: folder with the `all_init_qpos.npy` and `all_init_qvel.npy` of the human demonstrations: train
            seed i then starts where demonstration i did. Without it train episodes start like test episodes.
        video_size: height and width of the video frames, px, even.
    """
    return TaskAdapter(
        name=name,
        make_env=partial(
            make_kitchen_env,
            abs_action,
            robot_noise_ratio,
            tuple(video_size),
            None if initial_states is None else str(Path(initial_states)),
        ),
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
        score=fraction_completed,
        extra="kitchen",
        packages=("mujoco", "gymnasium_robotics"),
    )
