"""Demonstrations as flat arrays plus episode ends, read from zarr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.numbers import require_finite, require_real, to_pixels
from diffusion_policy.dataset.zarr_reader import ZarrFile

__all__ = ["DatasetError", "ReplayBuffer", "split_episodes"]


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
        if ends.ndim != 1 or len(ends) == 0 or ends.dtype.kind not in "iuf":
            raise DatasetError(
                f"episode_ends are {ends.dtype} {list(ends.shape)} instead of a list of at least one row number"
            )
        if not np.isfinite(ends).all() or (ends != np.floor(ends)).any() or (ends >= 2**62).any():
            raise DatasetError("episode_ends must be row numbers, and are not whole numbers")
        lengths = np.diff(ends.astype(np.int64), prepend=0)  # differences of unsigned numbers are never negative
        if (lengths <= 0).any():
            first = int(np.argmax(lengths <= 0))
            raise DatasetError(
                f"episode_ends must be increasing and positive: episode {first} has {lengths[first]} rows (it ends at "
                f"row {int(ends[first])}, and the one before at {int(ends[first - 1]) if first else 0})"
            )
        for name, values in self.data.items():
            if np.ndim(values) == 0 or len(values) != ends[-1]:
                rows = len(values) if np.ndim(values) else "no"
                raise DatasetError(
                    f"array {name!r} has {rows} rows but the episodes end at row {int(ends[-1])}: "
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
            ends.append(np.asarray(buffer.episode_ends).astype(np.int64) + offset)
            offset = int(ends[-1][-1])
        return cls(
            {key: np.concatenate([buffer.data[key] for buffer in buffers]) for key in buffers[0].data},
            np.concatenate(ends),
        )

    @classmethod
    def from_zarr(
        cls,
        path: str | Path,
        keys: Sequence[str],
        hint: str = "",
        image_keys: Sequence[str] = (),
        any_number: Sequence[str] = (),
    ) -> ReplayBuffer:
        """Reads `data/<key>` and `meta/episode_ends` into memory, from a folder or a zip archive of one.

        Args:
            hint: tells the user how to get a missing data set.
            image_keys: those of the keys that hold pixel values 0..255 of any type; they are kept as uint8.
            any_number: those that may hold numbers that are not finite, or small integers and bool.

        Raises:
            DatasetError: it is missing, damaged, or holds what no training can use; names file, array, episode and row.
        """
        file = ZarrFile(path, hint)
        try:
            data = {
                key: file.read(f"data/{key}", np.uint8, to_pixels(f"{path}: data/{key}"))
                if key in image_keys
                else file.read(f"data/{key}")
                for key in keys
            }
            buffer = cls(data, file.read("meta/episode_ends"))
        except DatasetError as error:
            where = "" if str(path) in str(error) else f"{path}: "
            raise DatasetError(f"{where}{error}. {hint}".strip()) from error
        for key in keys:
            if key not in image_keys and key not in any_number:
                require_real(f"{path}: data/{key}", data[key])
                require_finite(path, f"data/{key}", data[key], buffer.episode_ends)
        return buffer


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
