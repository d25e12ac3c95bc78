"""Observations and settings that do not fit the image policy: the message says what does."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import build_policy
from tests.policy.image_policies import SMALL, camera, config_of, make_small


def changed(**changes) -> dict:
    return {"image": torch.full((2, 2, 3, 40, 40), 0.5), "agent_pos": torch.zeros(2, 2, 2), **changes}


@pytest.mark.parametrize(
    "obs, message",
    [
        ({"agent_pos": torch.zeros(2, 2, 2)}, r"needs the key 'image' \[B, To, 3, 40, 40\]; it has \['agent_pos'\]"),
        ({"image": torch.zeros(2, 2, 3, 40, 40)}, r"needs the key 'agent_pos' \[B, To, 2\]"),
        (
            changed(image=torch.zeros(2, 2, 3, 96, 96)),
            r"image has shape \(2, 2, 3, 96, 96\); this policy expects \[B, 2, 3, 40, 40\] "
            r"\(batch, observation steps, channels, height, width\): let the camera draw 40 x 40 pixels, or",
        ),
        (changed(image=torch.zeros(2, 2, 40, 40, 3)), "put the channels before height and width"),
        (changed(image=torch.zeros(2, 1, 3, 40, 40)), r"expects \[B, 2, 3, 40, 40\]"),
        (changed(image=torch.zeros(2, 3, 40, 40)), r"expects \[B, 2, 3, 40, 40\]"),
        (
            changed(image=torch.full((2, 2, 3, 40, 40), 200.0)),
            r"values from 200 to 200: give images in \[0, 1\], or uint8",
        ),
        (changed(image=torch.full((2, 2, 3, 40, 40), -0.5)), "from -0.5 to -0.5"),
        (changed(image=torch.zeros(2, 2, 3, 40, 40, dtype=torch.int64)), "is of type torch.int64: give uint8"),
        (
            changed(image=torch.full((2, 2, 3, 40, 40), math.nan)),
            r"image holds NaN or infinite values in batch rows \[0, 1\]",
        ),
        (changed(agent_pos=torch.tensor([[[0, 0], [0, math.inf]]] * 2)), "agent_pos holds NaN or infinite"),
        (
            changed(agent_pos=torch.zeros(2, 2, 3)),
            r"expects \[B, 2, 2\] \(batch, observation steps, observation size\)",
        ),
        (changed(agent_pos=torch.zeros(3, 2, 2)), "different batch sizes: {'image': 2, 'agent_pos': 3}"),
    ],
)
def test_bad_observations_are_clear_errors(small, obs, message):
    with pytest.raises(ValueError, match=message):
        small.predict_action(obs)


def small_meta(**obs) -> dict:
    return {"obs": obs, "action": {"shape": [2]}}


@pytest.mark.parametrize(
    "meta, message",
    [
        (small_meta(), "names no observation"),
        ({"obs": {"image": camera(40)}}, "shape_meta needs"),
        (small_meta(image=[3, 40, 40]), "shape_meta needs"),
        ({"obs": 3, "action": {"shape": [2]}}, "shape_meta needs"),
        (small_meta(cloud={"shape": [9], "type": "depth"}), "cloud is of type 'depth'.*use 'rgb' or 'low_dim'"),
        (
            small_meta(image={"shape": [40, 40], "type": "rgb"}),
            r"image \(rgb\) is .40, 40.; .* 3 positive whole numbers",
        ),
        (small_meta(state={"shape": [4, 4]}), "1 positive whole number"),
        (small_meta(state={"shape": [0]}), "1 positive whole number"),
        (small_meta(action={"shape": [2]}), "cannot be named 'action'"),
        (small_meta(**{"a.b": camera(40)}), "cannot be built"),
        ({**SMALL, "action": {"shape": "2"}}, "shape of action is '2'"),
    ],
)
def test_observations_that_cannot_be_described(meta, message):
    with pytest.raises(ConfigError, match=message):
        build_policy(config_of(meta, crop_shape=[36, 36]))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"crop_shape": [36]}, "crop_shape is .36.; it has to be 2 positive"),
        ({"crop_shape": "36"}, "crop_shape is '36'"),
        ({"crop_shape": [44, 36]}, "crop_shape 44 x 36 exceeds the images of image, 40 x 40"),
        ({"time_as_cond": False}, "time_as_cond=True"),
        ({"n_action_steps": 10}, "exceeds horizon"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_small(**changes)
