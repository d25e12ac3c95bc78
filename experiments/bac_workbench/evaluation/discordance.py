"""Whether one policy succeeds more often than another on the same episodes: McNemar's exact test, also for clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Discordance:
    """Pairs of which one side alone succeeds.

    Attributes:
        gained: the method succeeds where the full policy fails.
        lost: the reverse.
        p_value: two-sided, of pairs that are gained and lost with the same probability.
    """

    gained: int
    lost: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def mcnemar(values: Sequence[float], baseline: Sequence[float], clusters: Sequence[int]) -> Discordance:
    """McNemar's exact test of paired successes (McNemar 1947), exact also where pairs come in clusters.

    Without a difference between the two policies each cluster's surplus of gains is as likely as the same surplus of
    losses. The p value is the share of all choices of signs whose sum is at least as far from zero as the one seen.
    With one pair per cluster that is McNemar's test, the binomial one of the pairs that differ.

    Args:
        values, baseline: 0 or 1, of the same episodes.
        clusters: pairs of one environment seed are not independent of each other.

    Raises:
        ValueError: other values, or not one cluster and one baseline per value.
    """
    own, base = (np.asarray(scores, dtype=float) for scores in (values, baseline))
    if not len(own) == len(base) == len(clusters):
        raise ValueError(f"{len(own)} and {len(base)} values of {len(clusters)} episodes")
    if not np.isin([own, base], (0.0, 1.0)).all():
        raise ValueError("successes are 0 or 1")
    difference = (own - base).astype(int)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    surplus = np.bincount(index, difference).round().astype(int)
    return Discordance(int((difference > 0).sum()), int((difference < 0).sum()), sign_flip(surplus))


def sign_flip(surplus: np.ndarray) -> float:
    """P(|sum of +-surplus| >= |sum of surplus|), all signs equally likely; whole numbers. 1 where all are zero."""
    sizes = np.abs(surplus[surplus != 0])
    density = np.ones(1)  # of the sum, on -reach..reach
    for size in sizes:
        kernel = np.zeros(2 * size + 1)
        kernel[[0, -1]] = 0.5
        density = np.convolve(density, kernel)
    reach = int(sizes.sum())
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(surplus.sum()))
    return float(min(1.0, density[far].sum()))
