"""Steps, jitter and jumps of a candidate beside the full policy, and the tables and pictures of a tuning."""

from __future__ import annotations

import numpy as np
import pytest

from bac_workbench.tuning.evidence import behaviour
from diffusion_policy.env_runner.episodes import EpisodeResult


def episodes(lengths, success: bool = True, jitter=1.0) -> list[EpisodeResult]:
    return [
        EpisodeResult(
            index=index,
            seed=300_000 + index,
            split="test",
            score=float(success),
            max_reward=1.0,
            sum_reward=1.0,
            success=success,
            truncated=not success,
            env_steps=int(length),
            policy_calls=1,
            success_step=int(length) - 1 if success else None,
            jitter=jitter,
            boundary_jump=None,
        )
        for index, length in enumerate(lengths)
    ]


LENGTHS = np.arange(100, 130)


def test_a_policy_that_succeeds_later_and_shakes_more_is_marked():
    found = behaviour(episodes(LENGTHS * 1.2, jitter=1.5), episodes(LENGTHS))
    assert found.steps.of_successes and found.steps.low > 1.1
    assert found.marks == ["20 % more steps to success", "50 % more jitter"]
    assert found.boundary_jump is None  # no episode has it


def test_the_same_episodes_and_faster_ones_are_not_marked():
    full = episodes(LENGTHS)
    same = behaviour(full, full)
    assert same.marks == [] and same.steps.value == 1.0 and same.steps.low == same.steps.high == 1.0
    assert behaviour(episodes(LENGTHS * 0.8), full).marks == []


def test_a_difference_that_chance_explains_is_not_marked():
    factors = np.tile([0.6, 1.7, 1.0], len(LENGTHS) // 3)
    found = behaviour(episodes(LENGTHS * factors), episodes(LENGTHS))
    assert found.steps.value > 1.05 and found.steps.low < 1 and found.marks == []


def test_where_few_succeed_whole_episodes_are_compared():
    found = behaviour(episodes(LENGTHS * 1.5, success=False), episodes(LENGTHS))
    assert not found.steps.of_successes and found.marks == ["50 % more steps"]


def test_other_seeds_on_both_sides_are_an_error():
    full = episodes(LENGTHS)
    with pytest.raises(ValueError, match="same seeds"):
        behaviour(full[1:], full[:-1])
