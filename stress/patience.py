"""Waiting that counts its own naps: where a machine is put to sleep, its clocks jump, and nobody was too slow."""

from __future__ import annotations

import time
from collections.abc import Iterator

NAP = 0.01  # seconds


def naps(seconds: float) -> Iterator[int]:
    """So many turns of `NAP` seconds, one before each next turn; the first comes at once."""
    for turn in range(max(1, round(seconds / NAP))):
        yield turn
        time.sleep(NAP)
