"""How much memory a data file may claim, given how many bytes it really has.

A few hundred bytes can claim arrays of any size. What is claimed is therefore compared with what is stored before
memory is set aside for it. Packed data may claim `PLAUSIBLE_RATIO` times their size (the images of Push-T, the most
compressible published ones, are packed 25 times as uint8); below `ALWAYS_ALLOWED` nothing is compared, as constant
arrays pack to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from diffusion_policy.dataset.errors import DatasetError

ALWAYS_ALLOWED = 64 << 20  # bytes
PLAUSIBLE_RATIO = 100
LARGEST_CHUNK = 256 << 20  # bytes: a chunk is unpacked as a whole, however few of its rows are wanted
MAX_DIMENSIONS = 8


def n_bytes(shape: Iterable[int], itemsize: int) -> int:
    """Bytes of an array, as a Python integer, which does not overflow."""
    return math.prod(shape) * itemsize


class Budget:
    """Sums up what the arrays of one data set claim and what is stored of them.

    Args:
        stored: bytes that are there in any case.
    """

    def __init__(self, stored: int = 0):
        self.claimed, self.stored = 0, stored

    def add(self, what: str, claimed: int, stored: int = 0) -> None:
        """Raises DatasetError, naming `what`, when the claims so far are more than what is stored can hold."""
        self.claimed += claimed
        self.stored += stored
        if self.claimed > max(ALWAYS_ALLOWED, PLAUSIBLE_RATIO * self.stored):
            raise DatasetError(
                f"{what} claims {claimed:,} bytes, and {self.stored:,} bytes are stored: its description is "
                "damaged or hostile"
            )
