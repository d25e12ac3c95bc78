"""Means with intervals, which cover 95 % by default.

Scores that are successes or failures have intervals of their own, as Student's is empty where all are alike: Wilson's
for a rate, Agresti and Min's for the difference of two.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

#: draws of a bootstrap
RESAMPLES = 9_999


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` episodes with its interval and standard error."""

    mean: float
    low: float
    high: float
    standard_error: float
    n: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean with Student's t interval, clipped to `bounds`.

    One value has no interval: it is infinite before clipping.

    Raises:
        ValueError: there are no values.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        raise ValueError("no episodes to average over")
    mean = float(x.mean())
    if x.size == 1:
        error, half = math.inf, math.inf
    else:
        error = float(x.std(ddof=1) / math.sqrt(x.size))
        half = error * float(stats.t.ppf(0.5 + confidence / 2, x.size - 1))
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(mean, low, high, error, int(x.size))


def rate_interval(successes: Sequence[bool], confidence: float = 0.95) -> Estimate:
    """Success rate with Wilson's score interval (Wilson 1927), sound also at 0 and 1."""
    n, k = len(successes), int(sum(bool(s) for s in successes))
    if n == 0:
        raise ValueError("no episodes to average over")
    z, p = float(stats.norm.ppf(0.5 + confidence / 2)), k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), math.sqrt(p * (1 - p) / n), n)


def score_interval(values: Sequence[float]) -> Estimate:
    """Mean of scores in [0, 1]: a rate if all are 0 or 1."""
    return rate_interval(values) if _binary(values) else mean_interval(values, bounds=(0.0, 1.0))


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of `values - baseline` over the same episodes.

    Student's t interval; if all are 0 or 1 that of Agresti and Min (2005, "Wald+2"): half an episode more in each of
    the four outcomes of a pair.
    """
    if len(values) != len(baseline):
        raise ValueError(
            f"paired comparison needs the same episodes on both sides, got {len(values)} and {len(baseline)}"
        )
    difference = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    if not (len(values) and _binary(values) and _binary(baseline)):
        return mean_interval(difference, confidence)
    gained, lost, n = float((difference > 0).sum()) + 0.5, float((difference < 0).sum()) + 0.5, len(difference) + 2
    centre = (gained - lost) / n
    error = math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    half = error * float(stats.norm.ppf(0.5 + confidence / 2))
    return Estimate(float(difference.mean()), max(-1.0, centre - half), min(1.0, centre + half), error, len(difference))


def _binary(values: Sequence[float]) -> bool:
    return set(np.asarray(values, dtype=float)) <= {0.0, 1.0}


def clustered_score(values: Sequence[float], clusters: Sequence[int]) -> Estimate:
    """Mean score with an interval that takes `clusters` as independent, not the values within one.

    With one value per cluster it is `score_interval`. Clusters are weighted alike.
    """
    means = cluster_means(values, clusters)
    if len(means) == len(values):
        return score_interval(values)
    if len(set(values)) == 1 and _binary(values):
        return score_interval(means.tolist())
    return mean_interval(means, bounds=(0.0, 1.0))


def clustered_difference(
    values: Sequence[float], baseline: Sequence[float], clusters: Sequence[int], confidence: float = 0.95
) -> Estimate:
    """Mean paired difference, likewise; `n` counts clusters.

    Raises:
        ValueError: not the same number of values on both sides.
    """
    own, base = cluster_means(values, clusters), cluster_means(baseline, clusters)
    return paired_difference(own.tolist(), base.tolist(), confidence)


def bootstrap_interval(
    values: Sequence[float], baseline: Sequence[float], clusters: Sequence[int], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean paired difference by resampling clusters: bias-corrected and accelerated (Efron 1987).

    `RESAMPLES` draws from a fixed seed, so that it is the same each time. None where it does not exist: there are fewer
    than two clusters, or their differences hardly vary.

    Raises:
        ValueError: not the same number of values on both sides.
    """
    difference = cluster_means(values, clusters) - cluster_means(baseline, clusters)
    if len(difference) < 2 or np.ptp(difference) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # told by None
        found = stats.bootstrap(
            (difference,), np.mean, n_resamples=RESAMPLES, batch=500, confidence_level=confidence, method="BCa", rng=0
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def cluster_means(values: Sequence[float], clusters: Sequence[int]) -> np.ndarray:
    """The mean value of each cluster, in the clusters' order.

    Raises:
        ValueError: not one cluster per value.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values of {len(clusters)} episodes")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, np.asarray(values, dtype=float)) / np.bincount(index)
