"""What every kind of recording offers: named fields with one value a row, and episodes of consecutive rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

ACTION = "action"


@dataclass(frozen=True)
class Field:
    """One thing that is recorded.

    Attributes:
        shape: of a row.
        dtype: as it is stored; of a video uint8.
        stored: its place in the file, for people.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    stored: str

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


class Recording(Protocol):
    """A file or folder that somebody recorded.

    Attributes:
        path: where it is.
        kind: what it is, for people.
        fields: by name; also `ACTION` where actions are there.
        lengths: rows of each episode. Rows are counted through all episodes, from 0.
        window_steps: To where the file holds windows [N, To, ...] in place of episodes, each of which is then an
            "episode" of To rows; else None.
    """

    path: Path
    kind: str
    fields: Mapping[str, Field]
    lengths: Sequence[int]
    window_steps: int | None

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The rows [n, *shape] of a field.

        Args:
            rows: int [n], ascending and without repeats.

        Raises:
            DatasetError: they are damaged.
        """
        ...


def starts(recording: Recording) -> np.ndarray:
    """First rows of the episodes, and behind them the number of all rows: int64 [E + 1]."""
    return np.concatenate([[0], np.cumsum(recording.lengths)]).astype(np.int64)


def fingerprint(recording: Recording) -> str:
    """Eight hexadecimal digits that tell one recording from another, whatever its path.

    They cover fields, episodes and the first and last row of the smallest field, not all that is stored.
    """
    described = {
        "fields": {name: [list(field.shape), str(field.dtype)] for name, field in sorted(recording.fields.items())},
        "lengths": list(map(int, recording.lengths)),
    }
    smallest = min(recording.fields, key=lambda name: (int(np.prod(recording.fields[name].shape)), name))
    last = int(starts(recording)[-1]) - 1
    rows = recording.read(smallest, np.unique([0, last]))
    digest = hashlib.sha256(json.dumps(described).encode())
    digest.update(np.ascontiguousarray(rows).tobytes())
    return digest.hexdigest()[:8]
