"""Observations of a wrong shape: the message names what is wrong, and only that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_policy.policy.observation_checks import checked_observation

CPU = torch.device("cpu")


def refusal(value, shape=(3, 40, 48), steps=2) -> str:
    with pytest.raises(ValueError) as caught:
        checked_observation({"o": value}, "o", shape, steps, CPU, camera=len(shape) == 3)
    return str(caught.value)


@pytest.mark.parametrize(
    ("actual", "advice"),
    [
        ((2, 1, 3, 40, 48), "it has 1 observation step instead of 2: pass the last 2 frames"),
        ((1, 1, 3, 40, 48), "it has 1 observation step instead of 2: pass the last 2 frames"),
        ((3, 0, 3, 40, 48), "it has no observation step instead of 2"),
        ((2, 1, 3, 40, 48), "swap the first two axes"),
        ((2, 3, 40, 48), "the axis of the batch is missing"),
        ((1, 3, 40, 48), "the axis of observation steps is missing"),
        ((5, 3, 40, 48), "the axis of the batch or that of observation steps is missing"),
        ((3, 40, 48), "the axes of batch and observation steps are missing"),
        ((1, 6, 40, 48), "the 2 observation steps are joined"),
        ((1, 2, 1, 3, 40, 48), "it has 6 axes instead of 5"),
        ((1, 2, 40, 48, 3), "put the channels before height and width"),
        ((1, 1, 40, 48, 3), "put the channels before height and width"),
        ((1, 2, 3, 48, 40), "height and width are swapped"),
        ((1, 2, 480, 640, 3), "put the channels before height and width, and let the camera draw 40 x 48 pixels"),
        ((1, 2, 1, 40, 48), "its images have 1 channel instead of 3"),
        ((1, 2, 4, 40, 48), "its images have 4 channels instead of 3"),
        ((1, 2, 3, 480, 640), "let the camera draw 40 x 48 pixels, or resize its images"),
        ((40,), "it holds no images"),
    ],
)
def test_images(actual, advice):
    message = refusal(torch.zeros(actual))
    assert advice in message and str(actual) in message and "[B, 2, 3, 40, 48]" in message
    if actual[-3:] == (3, 40, 48):
        assert "pixels" not in message and "channels before" not in message


@pytest.mark.parametrize(
    ("actual", "advice"),
    [
        ((4, 1, 7), "it has 1 observation step instead of 2"),
        ((2, 7), "the axis of the batch is missing"),
        ((1, 7), "the axis of observation steps is missing"),
        ((7,), "the axes of batch and observation steps are missing"),
        ((3, 14), "the 2 observation steps are joined"),
        ((3, 7, 2), "the last two axes are swapped"),
        ((3, 2, 5), "an observation has 5 numbers instead of 7"),
        ((2, 5), "an observation has 5 numbers instead of 7"),
        ((3, 2, 1, 7), "it has 4 axes instead of 3"),
        ((), "bring its axes into this order"),
    ],
)
def test_vectors(actual, advice):
    assert advice in refusal(torch.zeros(actual), shape=(7,))


def test_one_observation_step():
    assert "the axis of observation steps is missing: pass the last frame" in refusal(
        torch.zeros(5, 7), shape=(7,), steps=1
    )


@pytest.mark.parametrize("value", ["text", None, [[1, 2], [3]], object(), np.array(["a"])])
def test_what_is_no_array(value):
    assert "is no array of numbers" in refusal(value)
    assert "is no array of numbers" in refusal(value, shape=(7,))


def test_observations_that_are_no_dict():
    with pytest.raises(ValueError, match="observations are a Tensor: pass a dict"):
        checked_observation(torch.zeros(1, 2, 7), "o", (7,), 2, CPU, camera=False)
    with pytest.raises(ValueError, match="needs the key 'o'"):
        checked_observation({1: 2, "b": 3}, "o", (7,), 2, CPU, camera=False)


def test_flipped_images_are_taken():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(1, 2, 3, 4, 4)
    value = checked_observation({"o": images[..., ::-1, :]}, "o", (3, 4, 4), 2, CPU, camera=True)
    assert torch.equal(value, torch.from_numpy(images.copy()).flip(-2).float() / 255)
