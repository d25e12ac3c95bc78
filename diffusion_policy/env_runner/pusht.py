"""Push-T in the evaluation loop, from keypoints or from images, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np

from diffusion_policy.env_runner.task import TaskAdapter

OBS_DIM, ACTION_DIM = 20, 2
IMAGE_OBS_SHAPES = {"image": (3, 96, 96), "agent_pos": (2,)}
PACKAGES = ("pymunk", "shapely", "pygame", "cv2")


def make_pusht_keypoints_env(legacy: bool, render_size: int) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

    return PushTKeypointsEnv(legacy=legacy, render_size=render_size)


def make_pusht_image_env(legacy: bool, render_size: int) -> gymnasium.Env:
    from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv

    return PushTImageEnv(legacy=legacy, render_size=render_size)


def without_visibility(observation: np.ndarray) -> np.ndarray:
    """What the policy sees: [40] -> [20], the keypoints and the agent without their visibility values."""
    return observation[:OBS_DIM]


def pusht_lowdim_task(
    n_obs_steps: int = 2,
    n_action_steps: int = 8,
    n_latency_steps: int = 0,
    max_steps: int = 300,
    n_train: int = 6,
    train_start_seed: int = 0,
    n_test: int = 50,
    test_start_seed: int = 100_000,
    legacy_test: bool = True,
    video_size: int = 256,
) -> TaskAdapter:
    """Push-T from keypoints. The score of an episode is its largest reward, success is a coverage above 0.95.

    Args:
        legacy_test: legacy resets (see `PushTEnv`), as in the published results; the train seeds 0, 1, ... then start
            where demonstrations 0, 1, ... did.
        video_size: edge of the video frames, px, even.
    """
    return TaskAdapter(
        name="pusht_lowdim",
        make_env=partial(make_pusht_keypoints_env, legacy_test, video_size),
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
        policy_observation=without_visibility,
        extra="pusht",
        packages=PACKAGES,
    )


def pusht_image_task(
    n_obs_steps: int = 2,
    n_action_steps: int = 8,
    n_latency_steps: int = 0,
    max_steps: int = 300,
    n_train: int = 6,
    train_start_seed: int = 0,
    n_test: int = 50,
    test_start_seed: int = 100_000,
    legacy_test: bool = True,
    video_size: int = 256,
) -> TaskAdapter:
    """Push-T from images and the agent's position (see `PushTImageEnv`); settings and score as `pusht_lowdim_task`."""
    return TaskAdapter(
        name="pusht_image",
        make_env=partial(make_pusht_image_env, legacy_test, video_size),
        obs_shapes=IMAGE_OBS_SHAPES,
        action_dim=ACTION_DIM,
        n_obs_steps=n_obs_steps,
        n_action_steps=n_action_steps,
        n_latency_steps=n_latency_steps,
        max_steps=max_steps,
        n_train=n_train,
        train_start_seed=train_start_seed,
        n_test=n_test,
        test_start_seed=test_start_seed,
        extra="pusht",
        packages=PACKAGES,
    )
