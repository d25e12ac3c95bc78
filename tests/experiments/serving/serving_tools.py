"""A server of a tiny policy in a thread of its own, and clients for it."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from websockets.sync.client import ClientConnection, connect

from bac import accelerate
from bac_workbench.serving.limits import Limits
from bac_workbench.serving.served import Served, metadata_of
from bac_workbench.serving.server import PolicyServer
from bac_workbench.serving.wire import packed, unpacked
from tests.bac.tiny_policies import tiny_policy

LIMITS = Limits(clients=16, waiting=8, request_bytes=64 << 10, rate=1e6, timeout_s=5, drain_s=5)


def served(seed: int = 0, n_action_steps: int = 4, **options: Any) -> Served:
    policy = tiny_policy(steps=4, seed=seed, n_layer=1)
    policy.n_action_steps = n_action_steps
    info = {"checkpoint_hash": policy.weights_hash(), "runtime": "planned"}
    return Served(accelerate(policy, runtime="planned", **options).attach(), info, metadata_of(policy, info), ())


class Running:
    """A server that runs; `ask(method)` calls one of its methods in its loop."""

    def __init__(self, server: PolicyServer, loop: asyncio.AbstractEventLoop, port: int, said: list[str]):
        self.server, self.loop, self.port, self.said = server, loop, port, said

    def ask(self, method: Callable[[], Any]) -> None:
        self.loop.call_soon_threadsafe(method)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """A number of /metrics, such as bac_requests_total{outcome="answered"}."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        raise AssertionError(f"no {name}")

    def client(self, **options: Any) -> Client:
        return Client(connect(f"ws://127.0.0.1:{self.port}", compression=None, **options))


@contextmanager
def running(
    policy: Served | None = None,
    load: Callable[[], Served] = served,
    token: str | None = None,
    deadline_ms: float | None = None,
    **limits: Any,
) -> Iterator[Running]:
    """A server on loopback; it is told to leave at the end, if nobody has."""
    said: list[str] = []
    first = served() if policy is None else policy
    up, made = threading.Event(), {}

    async def serve() -> None:
        server = PolicyServer(first, replace(LIMITS, **limits), token, 0, deadline_ms, load, said.append)
        made.update(server=server, loop=asyncio.get_running_loop(), port=await server.start("127.0.0.1", 0))
        up.set()
        await server.until_left()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(20)
    run = Running(made["server"], made["loop"], made["port"], said)
    try:
        yield run
    finally:
        if thread.is_alive():
            run.ask(run.server.leave)
        thread.join(20)
        assert not thread.is_alive()


class Client:
    """Speaks the protocol, without the comfort of openpi's client."""

    def __init__(self, connection: ClientConnection):
        self.connection = connection
        self.metadata = unpacked(connection.recv(timeout=10))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.connection.close()

    def send(self, message: str | bytes | dict) -> None:
        self.connection.send(packed(message) if isinstance(message, dict) else message)

    def receive(self) -> dict[str, Any] | str:
        answer = self.connection.recv(timeout=20)
        return answer if isinstance(answer, str) else unpacked(answer)

    def request(self, message: str | bytes | dict) -> dict[str, Any] | str:
        self.send(message)
        return self.receive()


def observation(seed: int = 0) -> dict[str, Any]:
    """What the tiny policy takes, with the seed of its noise."""
    numbers = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)).numpy()
    return {"obs": numbers, "seed": seed}


def expected(policy: Served, request: dict[str, Any]) -> np.ndarray:
    """The actions of a request, without any server."""
    noise = torch.Generator().manual_seed(request["seed"])
    tensors = {"obs": torch.from_numpy(np.asarray(request["obs"], np.float32))[None]}
    return policy.fast.policy.predict_action(tensors, noise)["action"][0].numpy()


class Slow:
    """Makes a policy take its time: it waits at `gate` in every chunk."""

    def __init__(self, policy: Served):
        self.gate, self.entered = threading.Event(), threading.Event()
        own = policy.fast.policy.encode_observation

        def waiting(obs: Any) -> Any:
            self.entered.set()
            assert self.gate.wait(20)
            return own(obs)

        policy.fast.policy.encode_observation = waiting
