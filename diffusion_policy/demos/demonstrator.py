"""What a task must offer to have demonstrations made."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Demonstrator(Protocol):
    """A scripted expert in its environment. Made in a worker process, from a picklable factory without arguments."""

    def record(self, seed: int) -> dict[str, np.ndarray] | None:
        """The demonstration that starts from `seed`, always the same one: arrays [T, ...] of one length T.

        None if the expert failed and the demonstration should not be kept.
        """

    def close(self) -> None:
        """Release the environment."""
