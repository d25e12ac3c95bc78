"""Numbers of the figures: how alike successive steps are, and how alike the maps of two episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class MapDistance(NamedTuple):
    """How far the similarity maps of one block in two episodes are apart, over the pairs of different steps.

    Attributes:
        difference: mean absolute difference of the entries, in the unit of the metric.
        correlation: Pearson's, of the entries; NaN where one map is constant and they differ.
    """

    difference: float
    correlation: float


def map_distance(one: np.ndarray, other: np.ndarray) -> MapDistance:
    """Of two maps [K, K], K >= 2; they are symmetric, so the entries above the diagonal are all there is.

    Raises:
        ValueError: they are no two maps of the same number of steps, 2 at least.
    """
    if one.shape != other.shape or one.ndim != 2 or one.shape[0] != one.shape[1] or len(one) < 2:
        raise ValueError(f"two maps [K, K] of the same 2 or more steps are compared, not {one.shape} and {other.shape}")
    above = np.triu_indices(len(one), 1)
    a, b = one[above].astype(np.float64), other[above].astype(np.float64)
    difference = float(np.abs(a - b).mean())
    if difference == 0.0:
        return MapDistance(0.0, 1.0)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return MapDistance(difference, float(a @ b) / spread if spread else float("nan"))


def distances(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, MapDistance]:
    """`map_distance` of every block."""
    return {block: map_distance(matrix, other[block]) for block, matrix in one.items()}


def changes(matrices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Block -> [K - 1]: how alike its outputs at steps k and k - 1 are, k = 1 ... K - 1 (paper, figure 1b)."""
    return {block: np.diagonal(matrix, 1).copy() for block, matrix in matrices.items()}


def relative_errors(errors: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[K, blocks]: errors as shares of each block's mean absolute output over all steps of the uncached chain.

    Blocks differ twentyfold in size; their errors can be compared as shares only. NaN for a block whose output is zero.

    Args:
        errors, sizes: [K, blocks], see `bac.block_errors.BlockErrors`.
    """
    size = np.broadcast_to(sizes.mean(axis=0), errors.shape)
    return np.divide(errors, size, out=np.full_like(errors, np.nan), where=size > 0)
