"""How smoothly an episode moved, and when it succeeded."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.env_runner.motion import Motion


def moved(actions: np.ndarray, chunk: int) -> Motion:
    motion = Motion()
    for start in range(0, len(actions), chunk):
        motion.begin_chunk()
        for action in actions[start : start + chunk]:
            motion.add(action)
    return motion


def test_a_steady_motion_does_not_jitter_and_jumps_by_its_speed():
    motion = moved(np.arange(12.0)[:, None] * [0.5, -0.5], 4)
    assert motion.jitter == pytest.approx(0.0) and motion.boundary_jump == pytest.approx(0.5)


def test_numbers_are_those_of_the_whole_sequence_whatever_the_chunks():
    actions = np.random.default_rng(0).normal(size=(20, 3))
    expected = np.sqrt((np.diff(actions, 2, axis=0) ** 2).mean())
    jumps = np.sqrt(((actions[5::5] - actions[4:-1:5]) ** 2).mean())
    assert moved(actions, 5).jitter == moved(actions, 3).jitter == pytest.approx(expected)
    assert moved(actions, 5).boundary_jump == pytest.approx(jumps)


def test_too_few_actions_have_neither():
    assert moved(np.zeros((2, 1)), 2).jitter is None and moved(np.zeros((8, 1)), 8).boundary_jump is None
