"""The one thread that owns the policy: chunks are computed one after the other, at batch 1."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bac_workbench.serving.served import Served


class Busy(Exception):
    """As many requests wait already as may."""


class Gone(Exception):
    """The client left before its turn."""


@dataclass(frozen=True)
class Answer:
    """Actions [Ta, Da], and seconds that the request waited and was computed."""

    actions: np.ndarray
    waited: float
    computed: float


class Worker:
    """Owns a policy. All its methods are called in the event loop.

    Args:
        seed: of the noise of requests that give no seed, in the order in which they are computed.
        most: requests that may wait while one is computed.

    Attributes:
        waiting: requests that wait or are computed.
    """

    def __init__(self, served: Served, seed: int, most: int):
        self.served, self.waiting = served, 0
        self._noise, self._most = torch.Generator().manual_seed(seed), most
        threads = torch.get_num_threads()
        # A new thread computes with another number of threads until it is told.
        self._thread = ThreadPoolExecutor(1, "policy", initializer=lambda: torch.set_num_threads(threads))

    async def act(self, request: Mapping[str, Any], is_there: Callable[[], bool]) -> Answer:
        """Computes the chunk of a request in its turn.

        Args:
            is_there: whether somebody still waits for the answer, asked when its turn comes.

        Raises:
            Busy, Gone: see there.
            BadRequest: see `Served.act`.
        """
        if self.waiting >= self._most + 1:
            raise Busy
        self.waiting += 1
        arrived = time.perf_counter()

        def compute() -> Answer:
            started = time.perf_counter()
            if not is_there():
                raise Gone
            actions = self.served.act(request, self._noise)
            return Answer(actions, started - arrived, time.perf_counter() - started)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, compute)
        finally:
            self.waiting -= 1

    async def replace(self, served: Served) -> None:
        """Between two chunks."""

        def swap() -> None:
            self.served = served

        await asyncio.get_running_loop().run_in_executor(self._thread, swap)

    def close(self) -> None:
        """Returns once the chunk that is being computed is done; what waits is given up."""
        self._thread.shutdown(wait=True, cancel_futures=True)
