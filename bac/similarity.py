"""How alike a block's outputs are at two denoising steps: metrics and pairwise matrices.

A *similarity matrix* of one block is float64 [K, K]; row a, column t compares the block's output at step a with
its output at step t. With features flattened to vectors f of n = B * T * D numbers, the metrics are

* ``cosine``: f_a . f_t / (|f_a| |f_t|), a similarity: 1 for equal directions. The whole vector counts once; it is
  not an average of per-sample or per-token cosines. Two zero vectors are alike (1), zero against non-zero is 0.
* ``l1``: mean over the n numbers of |f_a - f_t|, a distance.
* ``mse``: mean of (f_a - f_t)^2, a distance.
* ``l2``: root of ``mse``, a distance; the Euclidean distance divided by sqrt(n), so that it keeps the unit and
  size of the features however many there are. (For one block this factor changes no schedule.)

Every metric follows from two matrices of sums, the Gram matrix and the sums of absolute differences, so features
can be consumed as they come: accumulate these sums, then call `from_sums`. To average over observations, average
the matrices of the single observations; for ``l1`` and ``mse`` this equals one matrix over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A way to compare features.

    Attributes:
        name: its name in configs and files.
        maximise: true for a similarity (larger is more alike), false for a distance.
        identical: the value for identical features, hence of a matrix diagonal.
        title: its name in figures.
    """

    name: str
    maximise: bool
    identical: float
    title: str


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("cosine", True, 1.0, "cosine similarity"),
            Metric("l1", False, 0.0, "mean absolute difference"),
            Metric("l2", False, 0.0, "root mean square difference"),
            Metric("mse", False, 0.0, "mean squared difference"),
        )
    }
)


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}: choose one of {', '.join(METRICS)}")
    return METRICS[name]


def pairwise(features: np.ndarray, metric: str) -> np.ndarray:
    """Compare a block's features at all pairs of steps.

    Args:
        features: [K, ...], the block's output at each of K steps, usually [K, B, T, D].
        metric: one of `METRICS`.

    Returns:
        float64 [K, K], symmetric.

    Raises:
        ValueError: no features, or not all of them finite.
    """
    get_metric(metric)
    features = np.asarray(features, dtype=np.float64)
    if features.ndim < 2 or features.size == 0:
        raise ValueError(f"features must be a non-empty array [steps, ...], got shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features contain NaN or infinite values; check the policy's inputs and weights")
    flat = features.reshape(len(features), -1)  # [K, n]
    if metric == "l1":
        # Row by row: all pairs at once would need K * K * n numbers.
        abs_sum = np.stack([np.abs(flat - row).sum(axis=1) for row in flat])
        return from_sums(metric, flat.shape[1], abs_sum=abs_sum)
    return from_sums(metric, flat.shape[1], gram=flat @ flat.T)


def from_sums(
    metric: str, n_features: int, *, gram: np.ndarray | None = None, abs_sum: np.ndarray | None = None
) -> np.ndarray:
    """Turn accumulated sums into the matrix of a metric.

    Args:
        metric: one of `METRICS`.
        n_features: number n of features that were summed over.
        gram: [..., K, K], sum over features of f_a * f_t; needed by ``cosine``, ``l2`` and ``mse``. Accumulate it in
            float64: ``mse`` is a difference of its entries, and float32 sums leave only noise of a small one.
        abs_sum: [..., K, K], sum over features of |f_a - f_t|; needed by ``l1``.

    Returns:
        float64 [..., K, K].
    """
    get_metric(metric)
    needed, name = (abs_sum, "abs_sum") if metric == "l1" else (gram, "gram")
    if needed is None:
        raise ValueError(f"metric {metric!r} needs {name}")
    sums = np.asarray(needed, dtype=np.float64)
    if sums.ndim < 2 or sums.shape[-1] != sums.shape[-2]:
        raise ValueError(f"{name} must be [..., steps, steps], got shape {sums.shape}")
    if metric == "l1":
        return sums / n_features
    power = np.diagonal(sums, axis1=-2, axis2=-1)  # [..., K], |f_a|^2
    if metric == "cosine":
        norm = np.sqrt(power)
        norms = norm[..., :, None] * norm[..., None, :]
        # Only zero features have a zero norm: count them as equal to each other and unlike everything else.
        both_zero = (power[..., :, None] == 0) & (power[..., None, :] == 0)
        cosine = np.divide(sums, norms, out=both_zero.astype(np.float64), where=norms > 0)
        return np.clip(cosine, -1.0, 1.0)
    # |f_a - f_t|^2 expanded; rounding may push the distance of equal features a little below zero.
    mse = np.maximum(power[..., :, None] + power[..., None, :] - 2.0 * sums, 0.0) / n_features
    return np.sqrt(mse) if metric == "l2" else mse
