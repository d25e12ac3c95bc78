"""A `bac serve` of the bundled Push-T policy in a process of its own, on loopback, and sound requests for it."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from bac_workbench.serving.access import VARIABLE
from bac_workbench.serving.wire import packed, unpacked
from stress.patience import naps

ROOT = Path(__file__).resolve().parents[2]
TASK, CHECKPOINT = "pusht_lowdim", "checkpoint/pusht_lowdim/ddpm100"
START, END = 180, 30  # seconds for a process to start, and to end
TIMEOUT = 4.0  # seconds that the server gives a client


@dataclass(frozen=True)
class Request:
    """A message and the actions that answer it."""

    message: bytes
    actions: np.ndarray


def requests(count: int, runtime: str) -> list[Request]:
    """Random observations, and what the policy itself does with them in the same runtime."""
    import torch

    from bac import accelerate
    from diffusion_policy.common.checkpoint import load_policy

    policy, found = load_policy(ROOT / CHECKPOINT).policy, []
    with accelerate(policy, "tuned", runtime) as fast:
        for seed in range(count):
            observation = policy.random_observation(1, torch.Generator().manual_seed(seed))
            actions = fast.predict_action(observation, torch.Generator().manual_seed(seed))["action"][0].numpy()
            found.append(Request(packed({"obs": observation["obs"][0].numpy(), "seed": seed}), actions))
    return found


class ServerProcess:
    """Started on entering the block, and killed on leaving it if it is still there."""

    def __init__(self, folder: Path, runtime: str, max_clients: int):
        self.token, self.log = secrets.token_urlsafe(32), folder / "server.txt"
        environment = {**os.environ, VARIABLE: self.token, "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
        settings = [f"runtime={runtime}", "port=0", "threads=1", "max_rate=100000", f"max_clients={max_clients}"]
        command = [sys.executable, "-m", "bac_workbench.commands.main", "serve", f"task={TASK}", "cache=tuned"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *settings, f"timeout_s={TIMEOUT:g}"], env=environment, stdout=log, stderr=log
            )

    def __enter__(self) -> ServerProcess:
        self.port = int(self.said(r"ws://127\.0\.0\.1:(\d+)", START))
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def said(self, pattern: str, seconds: float) -> str:
        """What the server has written, as soon as it has.

        Raises:
            RuntimeError: it ended, or did not write it in time.
        """
        for _ in naps(seconds):
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            if self.process.poll() is not None:
                break
        raise RuntimeError(f"the server did not write {pattern!r}:\n{self.log.read_text()[-3000:]}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def get(self, path: str) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=END) as answer:
            return answer.read().decode()

    def metrics(self) -> dict[str, float]:
        """All numbers of /metrics by their names with labels."""
        lines = [line.rpartition(" ") for line in self.get("/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def connect(self, token: str | None = None) -> ClientConnection:
        """A client that has read the metadata."""
        header = {"Authorization": f"Api-Key {self.token if token is None else token}"}
        client = connect(
            f"ws://127.0.0.1:{self.port}",
            additional_headers=header,
            compression=None,
            open_timeout=END,
            ping_interval=None,
        )
        client.recv(timeout=END)
        return client


def labelled(name: str, **label: str) -> str:
    """A metric's name with its label, as it is printed."""
    ((key, value),) = label.items()
    return f'{name}{{{key}="{value}"}}'


def problem_of(answer: str | bytes, request: Request) -> str | None:
    """None if this is the answer to a request, bit for bit."""
    if isinstance(answer, str):
        return f"a sound request is refused: {answer}"
    return None if np.array_equal(unpacked(answer)["actions"], request.actions) else "the actions are wrong"
