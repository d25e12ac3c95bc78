"""Uniform caching: fixed intervals and even gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.blocks import decoder_blocks
from bac.schedule import Schedule, ScheduleError
from bac.uniform import uniform

BLOCKS = decoder_blocks(2)


@pytest.mark.parametrize(("steps", "budget"), [(100, 10), (100, 5), (100, 1), (100, 100), (16, 4)])
def test_dividing_budget_is_a_fixed_interval(steps, budget):
    expected = tuple(range(0, steps, steps // budget))
    schedule = uniform(BLOCKS, steps, budget)
    assert all(schedule.steps_of(name) == expected for name in BLOCKS)
    assert schedule == uniform(BLOCKS, steps, interval=steps // budget)


def test_budget_seven_of_a_hundred():
    assert uniform(BLOCKS, 100, 7).steps_of(BLOCKS[3]) == (0, 14, 28, 42, 57, 71, 85)


def test_interval_reproduces_the_released_code():
    schedule = uniform(BLOCKS, 100, interval=14)
    assert schedule.steps_of(BLOCKS[0]) == tuple(k for k in range(100) if k % 14 == 0)
    assert set(schedule.updates_per_block.values()) == {8}
    assert schedule.provenance.budget == 8 and schedule.provenance.extras == {"interval": 14}
    assert uniform(BLOCKS, 5, interval=9).steps_of(BLOCKS[0]) == (0,)


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(st.integers(1, 200), st.data())
def test_exactly_budget_updates_with_even_gaps(steps, data):
    budget = data.draw(st.integers(1, steps))
    schedule = uniform(BLOCKS, steps, budget)
    assert set(schedule.updates_per_block.values()) == {budget}
    gaps = np.diff([*schedule.steps_of(BLOCKS[0]), steps])
    assert gaps.max() - gaps.min() <= 1


def test_full_budget_is_no_cache():
    assert uniform(BLOCKS, 100, 100) == Schedule.full(BLOCKS, 100)


@pytest.mark.parametrize("arguments", [{}, {"budget": 5, "interval": 2}, {"budget": 0}, {"budget": 11}, {"interval": 0},
                                       {"budget": 2.5}, {"interval": "2"}])  # fmt: skip
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ScheduleError, match="budget|interval"):
        uniform(BLOCKS, 10, **arguments)


def test_repeated_blocks_are_refused():
    with pytest.raises(ValueError, match="more than once"):
        uniform(BLOCKS + BLOCKS[:1], 10, 2)
