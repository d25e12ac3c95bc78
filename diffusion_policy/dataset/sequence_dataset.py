"""Fixed-length windows over episodes, padded at episode ends by repeating the first and last row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.common.errors import InputError
from diffusion_policy.dataset.numbers import first_not_finite
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer, split_episodes
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer

NO_WINDOW = "no training window fits: the episodes are shorter than the horizon, or none was selected"
Dataset = TypeVar("Dataset", bound=torch.utils.data.Dataset)


def window_rows(
    buffer: ReplayBuffer, episodes: np.ndarray, horizon: int, pad_before: int = 0, pad_after: int = 0
) -> np.ndarray:
    """Row numbers [windows, horizon] of every window inside the selected episodes (bool [E]).

    A window may start up to `pad_before` rows before its episode and end up to `pad_after` rows after it; rows outside
    are clamped to the episode, which repeats its first or last row. No window crosses from one episode to the next.
    """
    pad_before, pad_after = min(pad_before, horizon - 1), min(pad_after, horizon - 1)
    ends = np.asarray(buffer.episode_ends).astype(np.int64)
    starts, ends = np.concatenate([[0], ends[:-1]])[episodes], ends[episodes]
    counts = np.maximum(0, ends - starts - horizon + pad_before + pad_after + 1)  # windows of each episode
    starts, ends = np.repeat(starts, counts)[:, None], np.repeat(ends, counts)[:, None]
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of the window in its episode
    rows = starts - pad_before + number[:, None] + np.arange(horizon)
    return np.clip(rows, starts, ends - 1, out=rows)


@dataclass(frozen=True)
class Windows:
    """How demonstrations are cut into windows, and which of them validate.

    Args:
        horizon: rows of a window.
        pad_before, pad_after: rows by which a window may reach beyond its episode, see `window_rows`.
        val_ratio: share of the episodes to validate on; 0: none.
        max_train_episodes: train on so many of the others at most; None: on all.
        seed: of the choice of episodes, and of noise that a data set draws once.
    """

    horizon: int
    pad_before: int = 0
    pad_after: int = 0
    val_ratio: float = 0.02
    max_train_episodes: int | None = None
    seed: int = 42

    def split(
        self,
        make: Callable[[np.ndarray], Dataset],
        buffer: ReplayBuffer,
        make_train: Callable[[np.ndarray], Dataset] | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Training and validation windows over `split_episodes`; validation is None if no window is left for it.

        Each data set is told of which episode its windows are: `episodes`, int [windows], numbers in the buffer.

        Args:
            make: a data set from row numbers [windows, horizon]; `make_train`, if given, makes the one to train on.
        """
        masks = split_episodes(buffer.n_episodes, self.val_ratio, self.max_train_episodes, self.seed)
        train, val = (window_rows(buffer, mask, self.horizon, self.pad_before, self.pad_after) for mask in masks)

        def made(make: Callable[[np.ndarray], Dataset], rows: np.ndarray) -> Dataset:
            dataset = make(rows)
            dataset.episodes = np.searchsorted(buffer.episode_ends, rows[:, 0], side="right")
            return dataset

        return made(make_train or make, train), made(make, val) if len(val) else None


class SequenceDataset(torch.utils.data.Dataset):
    """Windows of low-dimensional demonstrations, held in memory.

    Item: {'obs': float32 [T, Do], 'action': float32 [T, Da]}. A list of indices gives a batch [B, T, ...] at once.

    Args:
        fields: float [N, D] by name.
        rows: [windows, T], row numbers.
        normalizers: by field, a normalizer to use instead of fitting one.
    """

    def __init__(
        self, fields: Mapping[str, Tensor], rows: np.ndarray, normalizers: Mapping[str, FieldNormalizer] | None = None
    ):
        if len(rows) == 0:
            raise InputError(NO_WINDOW)
        _require_fields(normalizers, fields)
        self.fields = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in fields.items()}
        _require_numbers({name: values.numpy() for name, values in self.fields.items()})
        self.rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        self.normalizers = dict(normalizers or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        rows = self.rows[index]
        return {name: values[rows] for name, values in self.fields.items()}

    def fit_normalizer(self, mode: str = "limits") -> LinearNormalizer:
        """Fits on all rows of the buffer, like the original (validation rows only widen the limits)."""
        fitted = {
            name: FieldNormalizer.fit(values, mode)
            for name, values in self.fields.items()
            if name not in self.normalizers
        }
        return LinearNormalizer({**fitted, **self.normalizers})


class ImageSequenceDataset(torch.utils.data.Dataset):
    """Windows of demonstrations with images, which stay uint8 in memory.

    Item: {'action': float32 [T, Da], <camera>: uint8 [To, C, H, W], <vector>: float32 [To, D]}. A list of
    indices gives a batch [B, ...] at once.

    Args:
        fields: 'action' and the observations by name: uint8 [N, H, W, C] is an image, also a memory-mapped one; float
            [N, D] a vector.
        rows: [windows, T], row numbers.
        n_obs_steps: To, how many of a window's observations a policy looks at; only these are fetched. None: all T.
        normalizers: by field, a normalizer to use instead of fitting one.
    """

    def __init__(
        self,
        fields: Mapping[str, np.ndarray],
        rows: np.ndarray,
        n_obs_steps: int | None = None,
        normalizers: Mapping[str, FieldNormalizer] | None = None,
    ):
        if len(rows) == 0:
            raise InputError(NO_WINDOW)
        if n_obs_steps is not None and not 1 <= n_obs_steps <= rows.shape[1]:
            raise InputError(
                f"n_obs_steps = {n_obs_steps} of a window of {rows.shape[1]} rows: use 1 to {rows.shape[1]}"
            )
        _require_fields(normalizers, fields)
        self.images = {name: values for name, values in fields.items() if values.dtype == np.uint8 and values.ndim == 4}
        vectors = {
            name: np.asarray(values, dtype=np.float32) for name, values in fields.items() if name not in self.images
        }
        for name, values in vectors.items():
            if values.ndim != 2:
                raise InputError(
                    f"field {name!r} is {fields[name].dtype} {list(values.shape)}, "
                    "neither a vector float [N, D] nor an image uint8 [N, H, W, C]"
                )
        _require_numbers(vectors)
        self.vectors = {name: torch.from_numpy(values) for name, values in vectors.items()}
        self.rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        self.n_obs_steps = n_obs_steps
        self.normalizers = dict(normalizers or {})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        rows = self.rows[index]
        observed = rows[..., : self.n_obs_steps]
        item = {name: values[rows if name == "action" else observed] for name, values in self.vectors.items()}
        for name, values in self.images.items():
            item[name] = torch.from_numpy(values[observed.numpy()]).movedim(-1, -3).contiguous()
        return item

    def fit_normalizer(self, mode: str = "limits") -> LinearNormalizer:
        """Fits the vectors on all rows of the buffer; images always map from [0, 1] to [-1, 1]."""
        images = {name: FieldNormalizer.image() for name in self.images}
        vectors = {
            name: FieldNormalizer.fit(values, mode)
            for name, values in self.vectors.items()
            if name not in self.normalizers
        }
        return LinearNormalizer({**images, **vectors, **self.normalizers})


def _require_fields(normalizers: Mapping[str, FieldNormalizer] | None, fields: Mapping) -> None:
    unknown = sorted(set(normalizers or {}) - set(fields))
    if unknown:
        raise InputError(f"normalizers for {', '.join(unknown)}, but the fields are {', '.join(sorted(fields))}")


def _require_numbers(fields: Mapping[str, np.ndarray]) -> None:
    """Finds what no loader found: one number that is not finite makes all of its normalizer so, and the loss."""
    for name, values in fields.items():
        place = first_not_finite(values)
        if place is not None:
            raise DatasetError(
                f"field {name!r} of the demonstrations is not finite: {place}. Repair the numbers, or leave the "
                "episode out"
            )
