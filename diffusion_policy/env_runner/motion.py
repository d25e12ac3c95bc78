"""How smoothly a policy moves: numbers about the actions that one episode executed."""

from __future__ import annotations

import math

import numpy as np


class Motion:
    """Sums over the executed actions of an episode, so that none of them has to be kept but the last two."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None  # the action before the last
        self._last: np.ndarray | None = None
        self._starts_chunk = False
        self._bends, self._bend_sum = 0, 0.0
        self._jumps, self._jump_sum = 0, 0.0

    def begin_chunk(self) -> None:
        self._starts_chunk = True

    def add(self, action: np.ndarray) -> None:
        """The next executed action [Da]."""
        action = np.asarray(action, dtype=np.float64)
        if self._last is not None and self._starts_chunk:
            self._jumps += 1
            self._jump_sum += float(np.square(action - self._last).mean())
        if self._last is not None and self._before is not None:
            self._bends += 1
            self._bend_sum += float(np.square(action - 2 * self._last + self._before).mean())
        self._before, self._last, self._starts_chunk = self._last, action, False

    @property
    def jitter(self) -> float | None:
        """Root mean square second difference from action to action; None for fewer than three actions."""
        return math.sqrt(self._bend_sum / self._bends) if self._bends else None

    @property
    def boundary_jump(self) -> float | None:
        """Root mean square difference between the last action of a chunk and the first of the next; None for one."""
        return math.sqrt(self._jump_sum / self._jumps) if self._jumps else None
