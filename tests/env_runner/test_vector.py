import os
import signal
import time

import numpy as np
import pytest
from toy_env import make_toy, toy_factory

from diffusion_policy.env_runner import vector
from diffusion_policy.env_runner.vector import EnvWorkerDied, EnvWorkerError, VectorEnv

CHUNK = np.full((4, 2), 0.1)


def drain(env):
    answers = {}
    while env.n_pending:
        slot, answer = env.receive()
        answers[slot] = answer
    return answers


def play(env):
    """One episode per slot; returns slot -> list of (obs, outcome without process-dependent metrics)."""
    log = {slot: [] for slot in range(env.n_envs)}
    for slot in log:
        env.reset(slot, seed=slot)
    for _ in range(4):  # a reset and at most three chunks of four steps
        for slot, answer in drain(env).items():
            log[slot].append((answer.obs, answer.outcome))
            if answer.outcome is None:
                env.step(slot, CHUNK)
    return log


def test_worker_processes_give_what_one_process_gives():
    with VectorEnv(toy_factory, n_envs=5, n_workers=2) as env:
        started = time.monotonic()
        parallel = play(env)
        assert time.monotonic() - started < 20
    with VectorEnv(toy_factory, n_envs=5, n_workers=0) as env:
        serial = play(env)
    pids = set()
    for slot in range(5):
        assert len(parallel[slot]) == len(serial[slot])
        for (obs, outcome), (expected, local) in zip(parallel[slot], serial[slot]):
            np.testing.assert_array_equal(obs, expected)
            assert (outcome is None) == (local is None)
        assert outcome.score == local.score and outcome.env_steps == local.env_steps
        assert outcome.metrics["torch_imported"] == 0.0  # workers stay light
        pids.add(outcome.metrics["pid"])
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_exception_arrives_with_traceback_slot_and_seed(n_workers):
    with VectorEnv(toy_factory, n_envs=2, n_workers=n_workers) as env:
        env.reset(0, seed=5)
        env.reset(1, seed=1000)
        drain(env)
        env.step(1, CHUNK)
        with pytest.raises(EnvWorkerError) as error:
            env.receive()
    message = str(error.value)
    assert "slot 1 (seed 1000)" in message and "ZeroDivisionError: the toy divided by zero" in message
    assert "toy_env.py" in message and "_misbehave" in message


@pytest.mark.parametrize(
    "seed, words",
    [
        (1001, ["exit code -9", "likely out of memory", "slot 0: seed 1001"]),
        (1002, ["exit code 7"]),
    ],
)
def test_a_dead_worker_is_noticed_at_once(seed, words):
    with VectorEnv(toy_factory, n_envs=3, n_workers=2) as env:
        for slot, episode in enumerate([seed, 1, 2]):
            env.reset(slot, episode)
        drain(env)
        started = time.monotonic()
        with pytest.raises(EnvWorkerDied) as error:  # from step() if the worker is gone by then, else from receive()
            for slot in range(3):
                env.step(slot, CHUNK)
            drain(env)
        assert time.monotonic() - started < 5
    assert all(word in str(error.value) for word in words)


def test_a_worker_killed_from_outside_between_requests():
    with VectorEnv(toy_factory, n_envs=1, n_workers=1) as env:
        env.reset(0, seed=3)
        drain(env)
        process = env._workers[0].process
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(EnvWorkerDied, match="seed 3.*exit code -9"):
            env.step(0, CHUNK)
            env.receive()


def test_a_broken_pipe_inside_the_environment_is_reported():
    with VectorEnv(toy_factory, n_envs=1, n_workers=1) as env:
        env.reset(0, seed=1004)
        drain(env)
        env.step(0, CHUNK)
        with pytest.raises(EnvWorkerError, match="the video encoder is gone"):
            env.receive()


def test_a_hanging_environment_times_out_and_does_not_block_close(monkeypatch):
    monkeypatch.setattr(vector, "CLOSE_GRACE_S", 0.3)
    env = VectorEnv(toy_factory, n_envs=1, n_workers=1, timeout_s=20)
    env.reset(0, seed=1003)
    drain(env)
    env.timeout_s = 0.3
    env.step(0, CHUNK)
    with pytest.raises(EnvWorkerDied, match="0.3 s"):
        env.receive()
    process = env._workers[0].process
    started = time.monotonic()
    env.close()
    assert time.monotonic() - started < 3 and process.poll() is not None
    env.close()  # twice is fine


def test_misuse_is_explained():
    with pytest.raises(TypeError, match="cannot be sent to worker processes"):
        VectorEnv(lambda: make_toy(), n_envs=1, n_workers=1)
    with pytest.raises(ValueError, match="n_envs"):
        VectorEnv(toy_factory, n_envs=0)
    env = VectorEnv(toy_factory, n_envs=1, n_workers=0)
    with pytest.raises(RuntimeError, match="pending"):
        env.receive()
    env.reset(0, seed=0)
    with pytest.raises(RuntimeError, match="pending"):
        env.reset(0, seed=0)
    with pytest.raises(ValueError, match="slot 1"):
        env.reset(1, seed=0)
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset(0, seed=0)
