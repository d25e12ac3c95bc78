"""Push-T in the evaluation loop, from keypoints or from images, with the settings of the published benchmark.

The score of an episode is its largest reward, success is a coverage above 0.95.
"""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np

from diffusion_policy.env_runner.task import Environment, Requirements

OBS_DIM, ACTION_DIM = 20, 2
IMAGE_OBS_SHAPES = {"image": (3, 96, 96), "agent_pos": (2,)}
REQUIREMENTS = Requirements(("pymunk", "shapely", "pygame", "cv2"), extra="pusht")


def make_keypoints_env(legacy: bool, render_size: int) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

    return PushTKeypointsEnv(legacy=legacy, render_size=render_size)


def make_image_env(legacy: bool, render_size: int) -> gymnasium.Env:
    from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv

    return PushTImageEnv(legacy=legacy, render_size=render_size)


def without_visibility(observation: np.ndarray) -> np.ndarray:
    """What the policy sees: [40] -> [20], the keypoints and the agent without their visibility values."""
    return observation[:OBS_DIM]


def keypoints_environment(max_steps: int = 300, legacy_test: bool = True, video_size: int = 256) -> Environment:
    """Push-T from keypoints.

    Args:
        legacy_test: legacy resets (see `PushTEnv`), as in the published results; the train seeds 0, 1, ... then start
            where demonstrations 0, 1, ... did.
        video_size: edge of the video frames, px, even.
    """
    return Environment(
        make=partial(make_keypoints_env, legacy_test, video_size),
        action_dim=ACTION_DIM,
        max_steps=max_steps,
        obs_dim=OBS_DIM,
        policy_observation=without_visibility,
        requirements=REQUIREMENTS,
    )


def image_environment(max_steps: int = 300, legacy_test: bool = True, video_size: int = 256) -> Environment:
    """Push-T from images and the agent's position (see `PushTImageEnv`); settings as of `keypoints_environment`."""
    return Environment(
        make=partial(make_image_env, legacy_test, video_size),
        action_dim=ACTION_DIM,
        max_steps=max_steps,
        obs_shapes=IMAGE_OBS_SHAPES,
        requirements=REQUIREMENTS,
    )
