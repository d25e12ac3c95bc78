"""Demonstrations as flat arrays plus episode ends, read from zarr."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class DatasetError(RuntimeError):
    """A data set that is missing, truncated or not of the expected form; the message says what to do."""


@dataclass(frozen=True)
class ReplayBuffer:
    """Episodes laid end to end.

    Attributes:
        data: arrays [N, ...], one row per control step.
        episode_ends: int64 [E], exclusive end row of each episode.
    """

    data: Mapping[str, np.ndarray]
    episode_ends: np.ndarray

    def __post_init__(self) -> None:
        ends = np.asarray(self.episode_ends)
        if ends.ndim != 1 or len(ends) == 0 or (np.diff(ends, prepend=0) <= 0).any():
            raise DatasetError("episode_ends must be an increasing list of at least one positive row number")
        for name, values in self.data.items():
            if len(values) != ends[-1]:
                raise DatasetError(
                    f"array {name!r} has {len(values)} rows but the episodes end at row {ends[-1]}: "
                    "the data set is truncated; fetch or generate it again"
                )

    @property
    def n_episodes(self) -> int:
        return len(self.episode_ends)

    def episode(self, index: int) -> slice:
        """Rows of episode `index`."""
        start = 0 if index == 0 else int(self.episode_ends[index - 1])
        return slice(start, int(self.episode_ends[index]))

    @classmethod
    def joined(cls, buffers: Sequence[ReplayBuffer]) -> ReplayBuffer:
        """The episodes of all `buffers`, which have the same arrays, in their order."""
        ends, offset = [], 0
        for buffer in buffers:
            ends.append(np.asarray(buffer.episode_ends) + offset)
            offset = int(ends[-1][-1])
        return cls({key: np.concatenate([buffer.data[key] for buffer in buffers]) for key in buffers[0].data}, np.concatenate(ends))

    @classmethod
    def from_zarr(
        cls, path: str | Path, keys: Sequence[str], hint: str = "", image_keys: Sequence[str] = ()
    ) -> ReplayBuffer:
        """Reads `data/<key>` and `meta/episode_ends` into memory. `hint` tells the user how to get a missing data set.

        The `image_keys` among the keys hold pixel values 0..255 of any type and are kept as uint8.
        """
        import zarr

        path = Path(path)
        if not path.is_dir():
            raise DatasetError(f"no data set at {path}. {hint}".strip())
        try:
            root = zarr.open_group(str(path), mode="r")
            data = {key: (_pixels if key in image_keys else np.asarray)(root[f"data/{key}"]) for key in keys}
            ends = np.asarray(root["meta/episode_ends"])
        except (KeyError, ValueError, OSError, RuntimeError) as error:
            raise DatasetError(
                f"{path} is not a readable replay buffer ({error}); expected data/{{{','.join(keys)}}} and meta/episode_ends. {hint}"
            ) from error
        return cls(data, ends)


def _pixels(array: Any) -> np.ndarray:
    """A zarr array of pixel values as uint8, read in pieces: as float32 it would take four times the memory."""
    pixels = np.empty(array.shape, dtype=np.uint8)
    step = max(1, array.chunks[0])
    for start in range(0, len(pixels), step):
        values, piece = array[start:start + step], pixels[start:start + step]
        with np.errstate(invalid="ignore"):     # what does not fit into uint8 comes out different
            piece[:] = values
        if not np.array_equal(piece, values):
            last = start + len(piece) - 1
            raise ValueError(f"{array.name} holds other values than whole numbers 0..255, in rows {start} to {last}")
    return pixels


def split_episodes(
    n_episodes: int, val_ratio: float, max_train_episodes: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random disjoint (train, validation) masks over episodes, both bool [E].

    At least one episode validates when `val_ratio` > 0; `max_train_episodes` keeps a random subset for training.
    """
    val = np.zeros(n_episodes, dtype=bool)
    if val_ratio > 0:
        n_val = min(max(1, round(n_episodes * val_ratio)), n_episodes - 1)
        val[np.random.default_rng(seed).choice(n_episodes, size=n_val, replace=False)] = True
    train = ~val
    if max_train_episodes is not None and train.sum() > max_train_episodes:
        keep = np.random.default_rng(seed).choice(np.flatnonzero(train), size=int(max_train_episodes), replace=False)
        train = np.zeros(n_episodes, dtype=bool)
        train[keep] = True
    return train, val
