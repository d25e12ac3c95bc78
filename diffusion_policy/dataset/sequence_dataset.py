"""Fixed-length windows over episodes, padded at episode ends by repeating the first and last row."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer


def window_rows(
    buffer: ReplayBuffer, episodes: np.ndarray, horizon: int, pad_before: int = 0, pad_after: int = 0
) -> np.ndarray:
    """Row numbers [windows, horizon] of every window inside the selected episodes (bool [E]).

    A window may start up to `pad_before` rows before its episode and end up to `pad_after` rows after it; rows outside
    are clamped to the episode, which repeats its first or last row. No window crosses from one episode to the next.
    """
    pad_before, pad_after = min(pad_before, horizon - 1), min(pad_after, horizon - 1)
    windows = []
    for index in np.flatnonzero(episodes):
        rows = buffer.episode(index)
        starts = np.arange(rows.start - pad_before, rows.stop - horizon + pad_after + 1)
        windows.append(np.clip(starts[:, None] + np.arange(horizon), rows.start, rows.stop - 1))
    return np.concatenate(windows) if windows else np.zeros((0, horizon), dtype=np.int64)


class SequenceDataset(torch.utils.data.Dataset):
    """Windows of low-dimensional demonstrations, held in memory.

    Item: {'obs': float32 [T, Do], 'action': float32 [T, Da]}. A list of indices gives a batch [B, T, ...] at once.

    Args:
        fields: float [N, D] by name.
        rows: [windows, T], row numbers.
        range_eps: by field, the range below which the normalizer does not scale a dimension (its default for the others).
    """

    def __init__(self, fields: Mapping[str, Tensor], rows: np.ndarray, range_eps: Mapping[str, float] | None = None):
        if len(rows) == 0:
            raise ValueError("no training window fits: the episodes are shorter than the horizon, or none was selected")
        self.fields = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in fields.items()}
        self.rows = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
        self.range_eps = {name: {"range_eps": value} for name, value in (range_eps or {}).items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        rows = self.rows[index]
        return {name: values[rows] for name, values in self.fields.items()}

    def fit_normalizer(self, mode: str = "limits") -> LinearNormalizer:
        """Fits on all rows of the buffer, like the original (validation rows only widen the limits)."""
        return LinearNormalizer({
            name: FieldNormalizer.fit(values, mode, **self.range_eps.get(name, {})) for name, values in self.fields.items()
        })
