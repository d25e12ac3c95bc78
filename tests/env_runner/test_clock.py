"""The simulated clock: how many control steps a chunk takes, and how often the policy is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.common.errors import InputError
from diffusion_policy.env_runner.clock import THINKING, Clock, delay_steps
from diffusion_policy.env_runner.episodes import Episode

EPISODES = [Episode(index, 100 + index, "test") for index in range(40)]


@pytest.mark.parametrize(
    ("latency_ms", "control_hz", "steps"),
    [
        (0, 10, 0),
        (0.1, 10, 1),
        (100, 10, 1),
        (100.1, 10, 2),
        (300, 10, 3),
        (80, 12.5, 1),
        (240, 12.5, 3),
        (1150, 20, 23),
    ],
)
def test_a_chunk_takes_the_control_steps_that_begin_before_it_is_there(latency_ms, control_hz, steps):
    assert delay_steps(latency_ms, control_hz) == steps


def test_each_chunk_draws_its_own_latency_by_seed_episode_and_index():
    clock = Clock("async", (0.0, 150.0, 450.0), 10.0, seed=3)
    drawn = [[clock.delay(episode, chunk) for chunk in range(10)] for episode in EPISODES]
    assert drawn == [[clock.delay(episode, chunk) for chunk in range(10)] for episode in EPISODES]
    assert {delay for row in drawn for delay in row} == {0, 2, 5} and clock.longest == 5
    counts = [sum(row.count(delay) for row in drawn) for delay in (0, 2, 5)]
    assert min(counts) > 90  # of 400, a third each
    assert drawn != [
        [Clock("async", (0.0, 150.0, 450.0), 10.0, seed=4).delay(e, c) for c in range(10)] for e in EPISODES
    ]


@given(
    n_action_steps=st.integers(1, 12),
    spare=st.integers(0, 12),
    delay=st.integers(0, 30),
    thinking=st.sampled_from(THINKING),
)
def test_the_last_chunk_lasts_until_the_next_is_there_if_that_is_possible(n_action_steps, spare, delay, thinking):
    predicted = n_action_steps + spare
    pace = Clock(thinking, (100.0 * delay,), 10.0).pace(n_action_steps, predicted)
    assert 1 <= pace.interval <= n_action_steps and pace.chunk <= predicted
    if thinking == "hold":
        assert (pace.interval, pace.chunk, pace.ticks(delay)) == (
            n_action_steps,
            n_action_steps,
            n_action_steps + delay,
        )
        return
    needed = pace.ticks(delay) + delay  # the last action of a chunk is executed when the next chunk is there
    assert (needed <= pace.chunk) == (max(1, delay) + delay <= predicted)
    if n_action_steps + delay <= predicted and delay <= n_action_steps:
        assert pace.interval == n_action_steps  # and then it is asked as often as where the world waits
    assert pace.commits == (delay if thinking == "rtc" else 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("wait", (1.0,), 10.0), "use hold, async, rtc"),
        (("hold", (), 10.0), "give finite ones"),
        (("hold", (-1.0,), 10.0), "give finite ones"),
        (("hold", (float("inf"),), 10.0), "give finite ones"),
        (("hold", (1.0,), 0.0), "give one above 0"),
    ],
)
def test_an_impossible_clock_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Clock(*arguments)
