"""The statistics that LeRobot keeps of every feature, of an episode and of all: what its policies normalize by."""

from __future__ import annotations

import numpy as np

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
Statistics = dict[str, np.ndarray]


def of_numbers(values: np.ndarray) -> Statistics:
    """Of `values` [T, D] (or [T]): min, max, mean, std and quantiles [D], and the count [1]."""
    rows = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    quantiles = np.quantile(rows, QUANTILES, axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
        **{name_of(q): quantile for q, quantile in zip(QUANTILES, quantiles)},
    }


def of_colours(counts: np.ndarray, frames: int) -> Statistics:
    """Of the pixels of `frames` images, by channel: the same numbers [3, 1, 1], of levels that go from 0 to 1.

    Args:
        counts: int64 [3, 256], how often each level occurs in all images.
    """
    levels = np.arange(counts.shape[1]) / (counts.shape[1] - 1)
    share = counts / counts.sum(axis=1, keepdims=True)  # [3, 256]
    mean = share @ levels
    reached = np.cumsum(counts, axis=1)
    needed = np.ceil(np.outer(counts.sum(axis=1), QUANTILES)).astype(np.int64)  # [3, Q]
    quantiles = np.array([levels[np.searchsorted(row, wanted)] for row, wanted in zip(reached, needed)])
    statistics = {
        "min": levels[np.argmax(counts > 0, axis=1)],
        "max": levels[counts.shape[1] - 1 - np.argmax(counts[:, ::-1] > 0, axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0)),
        **{name_of(q): quantiles[:, index] for index, q in enumerate(QUANTILES)},
    }
    by_channel = {name: values.reshape(3, 1, 1) for name, values in statistics.items()}
    return {**by_channel, "count": np.array([frames])}


def name_of(quantile: float) -> str:
    """0.01 -> 'q01'."""
    return f"q{round(quantile * 100):02d}"
