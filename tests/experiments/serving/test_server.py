"""The server: openpi's client, right answers to each of many clients, and clients that misbehave."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bac_workbench.serving.wire import packed
from tests.experiments.serving.serving_tools import Slow, expected, observation, running, served

ANSWERED = 'bac_requests_total{outcome="answered"}'
TOKEN = "0123456789abcdef"


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def outcome(name):
    return f'bac_requests_total{{outcome="{name}"}}'


# ---- the protocol ----------------------------------------------------------------------------------------------------


def test_openpis_client_gets_the_policys_own_actions():
    websocket_client_policy = pytest.importorskip("openpi_client.websocket_client_policy")
    policy = served()
    with running(policy, token=TOKEN) as run:
        client = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", run.port, api_key=TOKEN)
        metadata = client.get_server_metadata()
        assert metadata["observations"]["obs"]["shape"] == [2, 3] and metadata["actions"]["shape"] == [4, 2]
        assert metadata["checkpoint_hash"] == policy.fast.policy.weights_hash()
        for seed in range(3):
            request = observation(seed)
            answer = client.infer(request)
            assert np.array_equal(answer["actions"], expected(policy, request))
            assert answer["server_timing"]["infer_ms"] > 0 <= answer["server_timing"]["queue_ms"]
        with pytest.raises(RuntimeError, match="lacks 'obs': this policy takes obs"):
            client.infer({})
        assert client.infer(observation())["actions"].shape == (4, 2), "a refused request leaves the connection open"
        eventually(lambda: run.server.metrics.requests["answered"] == 4)


def test_without_a_seed_noise_follows_from_the_servers_own():
    answers = []
    for _ in range(2):
        with running() as run, run.client() as client:
            request = {"obs": observation()["obs"]}
            answers.append([client.request(request)["actions"] for _ in range(2)])
    assert np.array_equal(answers[0], answers[1]) and not np.array_equal(*answers[0])


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"obs": np.zeros((2, 4))}, "obs"),
        ({"obs": np.zeros((1, 3))}, "obs"),
        ({"obs": np.full((2, 3), np.nan)}, "NaN|finite"),
        ({"obs": np.full((2, 3), 1e30)}, "1e\\+|units"),
        ({"obs": "text"}, "obs is no array of numbers"),
        ({"state": np.zeros((2, 3))}, "'obs': this policy takes obs"),
        ({"obs": np.zeros((2, 3)), "prompt": "go"}, "has 'prompt': this policy takes obs"),
        ({"obs": np.zeros((2, 3)), "seed": -1}, "seed has to be a whole number"),
        ({"obs": np.zeros((2, 3)), "seed": 1.5}, "seed has to be a whole number"),
        ({"obs": np.zeros((2, 3)), "seed": 2**63}, "seed has to be a whole number"),
    ],
)
def test_observations_that_do_not_fit_are_explained(request_, message):
    with running() as run, run.client() as client:
        assert re.search(message, client.request(request_))
        assert client.request(observation())["actions"].shape == (4, 2)
        assert run.metric(outcome("refused")) == 1 and run.metric(ANSWERED) == 1


def test_numbers_may_come_in_any_type_and_as_lists():
    policy, whole = served(), {"obs": np.array([[1, -2, 3], [0, 1, -1]]), "seed": 1}
    wanted = expected(policy, whole)
    with running(policy) as run, run.client() as client:
        for numbers in (
            *(whole["obs"].astype(kind) for kind in ("<f2", ">f4", "<f8", "i1", ">i8")),
            whole["obs"].tolist(),
        ):
            assert np.array_equal(client.request({"obs": numbers, "seed": 1})["actions"], wanted)


def test_malformed_messages_are_answered_and_the_connection_goes_on():
    with running() as run, run.client() as client:
        assert "send msgpack in binary frames" in client.request("hello")
        for message in (b"", b"\xc1\xc1", packed({"obs": np.zeros(3)})[:-2]):
            assert "no msgpack" in client.request(message)
        assert client.request(observation())["actions"].shape == (4, 2)
        assert run.metric(outcome("malformed")) == 4


# ---- many clients ----------------------------------------------------------------------------------------------------


def test_every_client_gets_the_answer_to_its_own_request():
    policy, clients, requests = served(), 8, 12
    wanted = [expected(policy, observation(seed)) for seed in range(clients * requests)]
    with running(policy) as run:

        def work(first):
            with run.client() as client:
                return [client.request(observation(first + n))["actions"] for n in range(requests)]

        with ThreadPoolExecutor(clients) as pool:
            answers = [actions for part in pool.map(work, range(0, clients * requests, requests)) for actions in part]
        assert all(np.array_equal(a, b) for a, b in zip(answers, wanted, strict=True))
        assert run.metric(ANSWERED) == run.metric("bac_chunk_seconds_count") == clients * requests
        for quantile in ("0.5", "0.95", "0.99"):
            for name in ("bac_chunk_seconds", "bac_request_seconds"):
                assert 0 < run.metric(f'{name}{{quantile="{quantile}"}}') < 10
        eventually(lambda: run.metric("bac_clients") == 0)


def test_a_full_queue_says_so_at_once():
    policy = served()
    slow = Slow(policy)
    with running(policy, waiting=1) as run, run.client() as one, run.client() as two, run.client() as three:
        one.send(observation(0))
        assert slow.entered.wait(10)
        two.send(observation(1))
        eventually(lambda: run.metric("bac_waiting") == 2)
        assert three.request(observation(2)) == "1 requests wait already: try again"
        slow.gate.set()
        for client, seed in ((one, 0), (two, 1)):
            assert np.array_equal(client.receive()["actions"], expected(policy, observation(seed)))
        assert not isinstance(three.request(observation(2)), str)
        assert run.metric(outcome("busy")) == 1


def test_too_many_clients_are_turned_away():
    with running(clients=2) as run:
        with run.client(), run.client():
            with pytest.raises(InvalidStatus, match="503"):
                run.client()
            assert run.metric('bac_rejected_connections_total{reason="full"}') == 1
        eventually(lambda: run.metric("bac_clients") == 0)
        run.client().connection.close()


def test_a_client_that_asks_too_fast_is_told_and_others_are_not_slowed():
    with running(rate=5) as run, run.client() as fast, run.client() as other:
        answers = [fast.request(observation()) for _ in range(30)]
        assert "more than 5 requests per second: slow down" in answers
        assert not isinstance(other.request(observation()), str)
        assert run.metric(outcome("too_fast")) == answers.count("more than 5 requests per second: slow down")


# ---- clients that misbehave ------------------------------------------------------------------------------------------


def test_an_oversized_message_ends_its_own_connection_only():
    with running() as run, run.client() as large, run.client() as other:
        large.send(b"\0" * (64 << 10) + b"\0")
        with pytest.raises(ConnectionClosed, match="1009"):
            large.receive()
        assert not isinstance(other.request(observation()), str)


def test_the_limit_of_a_message_follows_from_the_observations():
    policy = served()
    assert policy.request_bytes == 8 * 2 * 3 + (64 << 10)
    assert len(packed({"obs": np.zeros((2, 3)), "seed": 2**62})) < policy.request_bytes


def test_wrong_tokens_are_turned_away_and_health_needs_none():
    with running(token=TOKEN) as run:
        for header in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            with pytest.raises(InvalidStatus, match="401"):
                run.client(additional_headers=header)
            assert run.get("/metrics", **header)[0] == 401
        with run.client(additional_headers={"Authorization": f"Api-Key {TOKEN}"}) as client:
            assert not isinstance(client.request(observation()), str)
        status, text = run.get("/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200 and 'bac_rejected_connections_total{reason="unauthorised"} 6' in text
        assert run.get("/healthz") == (200, "OK\n")


def test_pages_in_browsers_are_turned_away():
    with running() as run, pytest.raises(InvalidStatus, match="403"):
        run.client(origin="http://somewhere.example")


def test_a_client_that_dies_in_mid_request_costs_nobody_anything():
    policy = served()
    slow = Slow(policy)
    with running(policy) as run, run.client() as other:
        with run.client() as first:
            first.send(observation(0))
            assert slow.entered.wait(10)
            with run.client() as waiting:
                waiting.send(observation(1))
                eventually(lambda: run.metric("bac_waiting") == 2)
                for client in (first, waiting):
                    client.connection.socket.shutdown(socket.SHUT_RDWR)
            eventually(lambda: run.metric("bac_waiting") == 2)
        slow.gate.set()
        eventually(lambda: run.metric(outcome("gone")) == 2)
        assert run.metric("bac_chunk_seconds_count") < 2, "nothing is computed for a client that left before its turn"
        assert np.array_equal(other.request(observation(2))["actions"], expected(policy, observation(2)))
        eventually(lambda: run.metric("bac_clients") == 1)


def raw(run, *parts):
    """A socket that has sent some bytes of a handshake."""
    connection = socket.create_connection(("127.0.0.1", run.port), timeout=20)
    for part in parts:
        connection.sendall(part)
    return connection


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_slow_clients_are_dropped_and_others_served_meanwhile():
    """One that never finishes its handshake, one that dribbles a message, one that asks and does not read."""
    with running(timeout_s=0.5) as run, run.client() as other:
        begun = raw(run, b"GET / HTTP/1.1\r\nHost:")
        dribbling = raw(run, HANDSHAKE, b"\x82\xfe\x20\x00\0\0\0\0")  # 8 kB are to come
        unread = raw(run, HANDSHAKE, b"\x82\x81\0\0\0\0\xc1" * 200_000)
        end = time.monotonic() + 4
        # At the beginning they may not be counted yet.
        while time.monotonic() < end and (run.metric(outcome("slow")) < 1 or run.metric("bac_clients") > 1):
            try:
                dribbling.sendall(b"\0")
            except OSError:
                pass
            assert not isinstance(other.request(observation()), str)
        assert run.metric("bac_clients") == 1 and run.metric(outcome("slow")) == 1
        begun.settimeout(5)
        assert b"101" not in begun.recv(1000), "no handshake was made"
        for connection in (begun, dribbling, unread):
            connection.close()
        assert not isinstance(other.request(observation()), str)


def test_a_failure_inside_is_told_without_its_details():
    policy = served()
    with running(policy) as run, run.client() as client:
        with torch.no_grad():
            policy.fast.policy.model.head.bias.add_(1)
        assert client.request(observation()) == "the server failed, its log says why"
        assert any("weights changed" in line for line in run.said)
        assert run.metric(outcome("failed")) == 1
