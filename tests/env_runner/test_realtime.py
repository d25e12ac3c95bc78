"""Episodes in which the world goes on while the policy thinks."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_env import ToyEnv, ToyHeldEnv, make_held, make_toy

from diffusion_policy.env_runner.clock import THINKING, Clock, Pace
from diffusion_policy.env_runner.contract import EnvironmentContractError
from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.realtime import RealTimeStep
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.vector import VectorEnv

EPISODES = [Episode(index, 100 + index, "test") for index in range(9)]
LATENCIES = (0.0, 120.0, 350.0)


class Endless(ToyHeldEnv):
    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, False, truncated, info


def played(pace: Pace, delays: list[int], steps: int) -> list[tuple[int, int] | None]:
    """What is executed, as (request, place in its chunk) or None for standing still, told control step by step."""
    executed, plan, asked, requests = [], [], 0, 0
    thinking = None  # request, when its chunk is there, actions executed since it
    for now in range(steps):
        while True:
            if thinking is not None and now >= thinking[1]:
                plan, thinking = [(thinking[0], place) for place in range(thinking[2], pace.chunk)], None
            due = not plan if not pace.continues else not requests or now >= asked + pace.interval
            if thinking is not None or not due:
                break
            thinking, asked = [requests, now + delays[requests % len(delays)], 0], now
            requests += 1
        executed.append(plan.pop(0) if plan else None)
        if thinking is not None and executed[-1] is not None:
            thinking[2] += 1
    return executed


@settings(max_examples=200, deadline=None)
@given(
    thinking=st.sampled_from(THINKING),
    n_action_steps=st.integers(1, 6),
    spare=st.integers(0, 6),
    delays=st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_every_control_step_executes_what_the_clock_says(thinking, n_action_steps, spare, delays):
    pace = Clock(thinking, [100.0 * d for d in delays], 10.0).pace(n_action_steps, n_action_steps + spare)
    slot = RealTimeStep(Endless(), 2, 40, pace)
    result, request = slot.reset(0), 0
    while result.outcome is None:
        before, committed, delay = len(slot.env.executed), result.committed, delays[request % len(delays)]
        result = slot.step(np.array([[request, place] for place in range(pace.chunk)], dtype=float), delay)
        request += 1
        if committed is not None:  # it is what is executed until the chunk is there
            shown = np.array(slot.env.executed[before : before + min(delay, len(committed))]).reshape(-1, 2)
            assert np.array_equal(committed[: len(shown)], shown)
    last, expected = (-9.0, -9.0), []  # the toy's action before the first
    for item in played(pace, delays, 40):
        last = last if item is None else item
        expected.append(last)
    assert result.outcome.env_steps == 40
    assert np.array_equal(np.array(slot.env.executed), np.array(expected, dtype=float))


def act(obs, active, episodes, chunk_index, committed=None, length=4):
    """Acts on every row by itself, as a policy does: on what it sees, with noise of the episode and the chunk."""
    actions = np.zeros((len(obs), length, 2), dtype=np.float32)
    for row, episode in enumerate(episodes):
        if episode is None:
            assert committed is None or committed[row] is None
            continue
        rng = np.random.default_rng([episode.seed, chunk_index[row]])
        actions[row] = 0.3 * rng.normal(size=(length, 2)) - 0.5 * obs[row, -1, :2]
        if committed is not None:
            actions[row, : len(committed[row])] = committed[row]
    return actions


def run(thinking, latencies, n_envs, n_workers=0, episodes=EPISODES):
    clock = Clock(thinking, latencies, 10.0)
    pace = clock.pace(4, 8)
    with VectorEnv(partial(make_held, pace), n_envs, n_workers) as env:
        results, _ = rollout(partial(act, length=pace.chunk), env, episodes, clock=clock)
    return [dataclasses.replace(result, metrics={}) for result in results]


@pytest.mark.parametrize("thinking", THINKING)
def test_without_latency_it_is_the_world_that_waits(thinking):
    with VectorEnv(partial(make_toy, max_steps=9), 3, 0) as env:
        waiting, _ = rollout(act, env, EPISODES)
    waiting = [dataclasses.replace(result, metrics={}) for result in waiting]
    assert run(thinking, (0.0,), 3) == waiting
    assert run(thinking, (250.0,), 3) != waiting


@pytest.mark.parametrize("thinking", THINKING)
def test_an_episode_does_not_depend_on_what_runs_beside_it(thinking):
    alone = run(thinking, LATENCIES, 1)
    assert run(thinking, LATENCIES, 4) == alone and run(thinking, LATENCIES, 3, n_workers=2) == alone
    assert run(thinking, LATENCIES, 2, episodes=EPISODES[5:]) == alone[5:]


def test_waiting_costs_control_steps():
    slow, fast = run("hold", (200.0,), 2), run("hold", (0.0,), 2)
    assert [result.env_steps for result in slow] == [result.env_steps for result in fast]  # the toy's own end
    assert all(a.policy_calls <= b.policy_calls for a, b in zip(slow, fast))
    assert sum(result.policy_calls for result in slow) < sum(result.policy_calls for result in fast)


def test_an_environment_that_cannot_be_held_is_refused():
    pace = Clock("hold", (100.0,), 10.0).pace(4, 8)
    with pytest.raises(EnvironmentContractError, match=r"no hold_action\(last\).*eval.clock=stopped"):
        RealTimeStep(ToyEnv(), 2, 9, pace)


@pytest.mark.parametrize("held", [np.zeros(3), np.array([np.nan, 0.0]), "still"])
def test_a_hold_action_that_is_no_action_is_named(held):
    class Odd(ToyHeldEnv):
        def hold_action(self, last):
            return held

    slot = RealTimeStep(Odd(), 2, 9, Clock("hold", (100.0,), 10.0).pace(4, 8))
    slot.reset(0)
    with pytest.raises(EnvironmentContractError, match=r"hold_action\(\) returned"):
        slot.step(np.zeros((4, 2)), 1)


def test_a_chunk_of_another_length_and_a_finished_episode_are_refused():
    slot = make_held(Clock("async", (100.0,), 10.0).pace(4, 8))
    slot.reset(0)
    with pytest.raises(ValueError, match=r"\[5, 2\] here"):
        slot.step(np.zeros((4, 2)), 1)
    while slot.step(np.zeros((5, 2)), 1).outcome is None:
        pass
    with pytest.raises(RuntimeError, match="call reset"):
        slot.step(np.zeros((5, 2)), 1)
