"""Means with intervals. A success rate gets Wilson's interval, any other score Student's; both cover 95 % by default."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats


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


def mean_interval(values: Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] | None = None) -> Estimate:
    """Mean with Student's t interval, clipped to `bounds`. One value has no interval: it is infinite before clipping."""
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


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of `values - baseline` over the same episodes with Student's t interval."""
    if len(values) != len(baseline):
        raise ValueError(f"paired comparison needs the same episodes on both sides, got {len(values)} and {len(baseline)}")
    return mean_interval(np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float), confidence)
