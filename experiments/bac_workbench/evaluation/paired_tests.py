"""One-sided tests of the mean of paired differences in [-1, 1], with bounds by inverting them.

Student's t and the bootstrap do not keep their level where a difference is mostly zero and rarely large, as for
policies that fail now and then: of 20 episodes that happen to agree they conclude that no other ever differs. These two
tests do; `tests/experiments/test_paired_tests.py` checks it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy import optimize, stats

#: the smallest difference of two scores in [0, 1]
LOWEST = -1.0
LOG_STEP = 0.02


class PairedTest(Protocol):
    """A test of "the mean is at most `threshold`" against "it is larger"."""

    def __call__(self, differences: np.ndarray, threshold: float, counts: np.ndarray | None = None) -> float:
        """The p value.

        Args:
            differences: in [-1, 1].
            counts: how often each of them was seen, once when None; fractions plan a sample of another size.
        """
        ...


def gaffke(differences: np.ndarray, threshold: float, counts: np.ndarray | None = None) -> float:
    """The p value of Gaffke (2005) for the mean of any bounded distribution.

    It is the probability that a weighted mean of the differences and of one more at their lowest possible value, -1, is
    at most `threshold`, with weights uniform on the simplex. For differences of two values it is Clopper and Pearson's
    exact test; for all others its level is a conjecture that no simulation has contradicted (Learned-Miller and Thomas
    2019; Phan et al. 2021). The probability is that of a sum of exponential variables (Imhof 1961, equation 3.2, with
    two degrees of freedom).
    """
    values, index = np.unique(np.append(differences, LOWEST), return_inverse=True)
    times = np.bincount(index, None if counts is None else np.append(counts, 1.0)).astype(float)
    offsets = values - threshold
    if offsets.max() <= 0:
        return 1.0
    if offsets.min() >= 0:
        return 0.0
    offsets = offsets / np.sqrt(times @ offsets**2)  # unit variance: the integrand lives on the scale of 1
    end = 1.0
    while times @ np.log1p((offsets * end) ** 2) < 56:  # the integrand is below 1e-12 from here on
        end *= 2
    # Over the logarithm of t the integrand is smooth and vanishes at both ends: equal steps converge exponentially.
    steps = np.arange(-20.0, np.log(end), LOG_STEP)
    scaled = np.exp(steps)[:, None] * offsets
    angle, log_size = np.arctan(scaled) @ times, -0.5 * np.log1p(scaled**2) @ times
    integral = LOG_STEP * float(np.sin(angle) @ np.exp(log_size))
    return float(np.clip(0.5 - integral / np.pi, 0.0, 1.0))


def tango(differences: np.ndarray, threshold: float, counts: np.ndarray | None = None) -> float:
    """The p value of Tango's score test (Tango 1998, section 3) for pairs of successes: differences -1, 0 or 1.

    Its level stays within a fifth of the nominal one from 20 pairs on.
    """
    times = np.ones(len(differences)) if counts is None else counts
    n, gained, lost = (float(times[chosen].sum()) for chosen in (differences < 2, differences > 0, differences < 0))
    excess = gained - lost - n * threshold
    # The probability of a loss, estimated under a mean difference of `threshold`.
    b = (2 * n - gained + lost) * threshold - gained - lost
    c = -lost * threshold * (1 - threshold)
    loss = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * loss + threshold * (1 - threshold))
    if variance <= 0:
        return 0.5 if excess == 0 else float(excess < 0)
    return float(stats.norm.sf(excess / np.sqrt(variance)))


def lower_bound(test: PairedTest, differences: np.ndarray, alpha: float) -> float:
    """The largest mean below which `test` rejects at level `alpha`."""

    def excess(threshold: float) -> float:
        return test(differences, threshold) - alpha

    mean = float(differences.mean())
    start, end = LOWEST + 1e-9, mean - 1e-9
    if end <= start or excess(start) >= 0:
        return LOWEST
    return end if excess(end) <= 0 else float(optimize.brentq(excess, start, end, xtol=1e-6))


def upper_bound(test: PairedTest, differences: np.ndarray, alpha: float) -> float:
    """The smallest mean above which `test`, of the opposite side, rejects at level `alpha`."""
    return -lower_bound(test, -differences, alpha)
