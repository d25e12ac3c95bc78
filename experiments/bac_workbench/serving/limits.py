"""What a client may ask of the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        clients: connections at once.
        waiting: requests that wait for the policy, of all clients; one more is computed meanwhile.
        request_bytes: of one message.
        rate: requests per second of one client, on average over a second.
        timeout_s: seconds for the handshake, to answer a ping, and to take an answer.
        drain_s: seconds for the requests that are there when the server shuts down.
    """

    clients: int
    waiting: int
    request_bytes: int
    rate: float
    timeout_s: float
    drain_s: float


class Rate:
    """A token bucket: `per_second` requests on average, as many at once after a pause, at least one."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic):
        self._rate, self._burst, self._clock = per_second, max(1.0, per_second), clock
        self._left, self._then = self._burst, clock()

    def allows(self) -> bool:
        """Whether one more request may come now; it counts if so."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
