"""Reload and shutdown: nobody loses an answer, and what cannot be served never replaces what can."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from diffusion_policy.common.config import CheckpointError
from tests.experiments.serving.serving_tools import Slow, expected, observation, running, served
from tests.experiments.serving.test_server import eventually, outcome


def test_a_reload_swaps_between_two_chunks():
    old, new = served(0), served(1)
    ready = threading.Event()

    def load():
        assert ready.wait(20)
        return new

    with running(old, load) as run, run.client() as client:
        run.ask(run.server.reload)
        run.ask(run.server.reload)
        assert np.array_equal(client.request(observation())["actions"], expected(old, observation()))
        ready.set()
        eventually(lambda: run.metric('bac_reloads_total{outcome="done"}') == 1)
        assert np.array_equal(client.request(observation())["actions"], expected(new, observation()))
        assert f'checkpoint_hash="{new.info["checkpoint_hash"]}"' in run.get("/metrics")[1]
        assert "a reload is under way already" in run.said and any("reloaded in" in line for line in run.said)
        with run.client() as later:
            assert later.metadata["checkpoint_hash"] == new.info["checkpoint_hash"]


def no_checkpoint():
    raise CheckpointError("no checkpoint there")


def broken():
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "load, says",
    [
        (no_checkpoint, "no checkpoint there"),
        (broken, "ZeroDivisionError"),
        (lambda: served(1, n_action_steps=2), "other actions .*start a server for it"),
    ],
)
def test_a_reload_that_fails_leaves_everything_as_it_was(load, says):
    old = served(0)
    with running(old, load) as run, run.client() as client:
        run.ask(run.server.reload)
        eventually(lambda: run.metric('bac_reloads_total{outcome="failed"}') == 1)
        assert re.search(f"(?s)what was served goes on: .*{says}", run.said[-1])
        assert np.array_equal(client.request(observation())["actions"], expected(old, observation()))


def test_shutting_down_answers_what_was_asked_and_nothing_more():
    policy = served()
    slow = Slow(policy)
    with running(policy) as run, run.client() as one, run.client() as two, run.client() as idle:
        one.send(observation(0))
        assert slow.entered.wait(10)
        two.send(observation(1))
        eventually(lambda: run.metric("bac_waiting") == 2)
        run.ask(run.server.leave)
        eventually(lambda: any("2 requests are still to be answered" in line for line in run.said))
        with pytest.raises(OSError):
            run.get("/healthz")  # nobody new is let in
        assert idle.request(observation(2)) == "the server is shutting down"
        slow.gate.set()
        for client, seed in ((one, 0), (two, 1)):
            assert np.array_equal(client.receive()["actions"], expected(policy, observation(seed)))
        for client in (one, two, idle):
            with pytest.raises(ConnectionClosed, match="1001"):
                client.receive()
    assert run.server.metrics.requests == {"answered": 2, "shutting_down": 1}


@pytest.mark.parametrize("twice", [False, True])
def test_shutting_down_does_not_wait_for_ever(twice):
    policy = served()
    slow = Slow(policy)
    started = time.monotonic()
    with running(policy, drain_s=30 if twice else 0.2) as run, run.client() as client:
        client.send(observation())
        assert slow.entered.wait(10)
        run.ask(run.server.leave)
        if twice:
            eventually(lambda: any("still to be answered" in line for line in run.said))
            run.ask(run.server.leave)
        eventually(lambda: any("gave up 1 requests" in line for line in run.said) or twice)
        with pytest.raises(ConnectionClosed, match="1001"):
            client.receive()
        slow.gate.set()
    assert time.monotonic() - started < 10


def test_requests_later_than_the_deadline_are_counted():
    with running(deadline_ms=1e-3) as run, run.client() as client:
        client.request(observation())
        eventually(lambda: run.metric("bac_deadline_missed_total") == 1)
    with running(deadline_ms=1e6) as run, run.client() as client:
        client.request(observation())
        eventually(lambda: run.metric(outcome("answered")) == 1)
        assert run.metric("bac_deadline_missed_total") == 0
