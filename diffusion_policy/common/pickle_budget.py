"""Limits of what the pickles of one file may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_standins import Inert, TypeName

_MAX_KEY = 2**60  # larger whole numbers can be made to have one and the same hash
_MAX_KEY_PARTS, _MAX_KEY_DEPTH = 16, 4


@dataclass
class Budget:
    """What all pickles of one file may do together: many times what sound checkpoints do.

    Raises (the methods):
        CheckpointError: a limit is exceeded.
    """

    operations: int = 1_000_000
    copies: int = 0  # elements and bytes that calls make; a pickle adds its own length
    composite_keys: int = 1_000
    classes: int = 200
    skipped: dict[str, None] = field(default_factory=dict)  # names of classes that placeholders stand for, in order

    def spend(self, copies: int) -> None:
        """Counts elements or bytes that a call makes."""
        self.copies -= copies
        if self.copies < 0:
            raise CheckpointError("it unfolds to many times its size: it is no policy checkpoint")

    def check_key(self, key: Any, depth: int = 0) -> None:
        """Refuses what cannot be hashed safely."""
        kind = type(key)
        if kind is str or key is None or kind in (bool, float, bytes) or kind in (type, TypeName, torch.dtype):
            return
        if kind is int and -_MAX_KEY < key < _MAX_KEY:
            return
        if isinstance(key, Inert):
            return  # by identity
        if kind in (tuple, frozenset) and len(key) <= _MAX_KEY_PARTS and depth < _MAX_KEY_DEPTH:
            self.composite_keys -= 1
            if self.composite_keys < 0:
                raise CheckpointError("it has too many keys that are tuples: it is no policy checkpoint")
            for part in key:
                self.check_key(part, depth + 1)
            return
        raise CheckpointError(f"it uses a {kind.__name__} as a key, of a form that no policy checkpoint needs")
