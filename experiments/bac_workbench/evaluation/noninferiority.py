"""Whether a candidate is worse than the full policy by less than a margin, from paired episodes.

A *pair* is an episode of both policies with the same environment seed and noise seed. Environment seeds are drawn
independently; pairs of one environment seed are not independent and count as their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from bac_workbench.evaluation.paired_tests import PairedTest, gaffke, lower_bound, tango, upper_bound
from bac_workbench.evaluation.statistics import cluster_means
from diffusion_policy.common.config import ConfigError

#: (noise seed, environment seed) of an episode
Pair = tuple[int, int]
#: probability of a proof that `pairs_needed` plans for
POWER = 0.8
FEWEST = 5
#: a plan that needs more environment seeds than this is none
MOST = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """What the pairs say about "the candidate is worse by less than `margin`".

    Attributes:
        result: 'shown' at level `alpha`; 'refuted' if it is worse by more than the margin at that level; or 'not
            shown', which says nothing.
        difference: mean score of the candidate minus the full policy's.
        low, high: one-sided bounds of the difference, each at level `alpha`.
        p_value: of a candidate that is worse by `margin` or more.
        pairs, environment_seeds: numbers of both.
        method: of the test: 'Tango' for pairs of successes, 'Gaffke' for all other scores.
        pairs_needed: pairs that would show it with a probability of 0.8 if the observed differences were typical, with
            as many noise seeds per environment seed as here; None if the difference itself is beyond the margin.
    """

    result: Literal["shown", "not shown", "refuted"]
    difference: float
    low: float
    high: float
    p_value: float
    margin: float
    alpha: float
    pairs: int
    environment_seeds: int
    method: str
    pairs_needed: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        plan = "" if self.result != "not shown" or self.pairs_needed is None else f"; {self.pairs_needed} may decide"
        return (
            f"not worse by more than {self.margin:g}: {self.result} ({self.difference:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.2g}, {self.pairs} pairs{plan})"
        )


def noninferior(
    candidate: Mapping[Pair, float], full: Mapping[Pair, float], margin: float = 0.05, alpha: float = 0.05
) -> Verdict:
    """Tests whether the candidate is worse than the full policy by less than `margin`.

    Pairs of successes with one noise seed are tested with Tango's score test. All other scores are tested with
    Gaffke's, on one mean difference per environment seed. Neither takes pairs that all agree for certainty; see
    `least_pairs`.

    Args:
        candidate, full: scores in [0, 1] of the same episodes, by (noise seed, environment seed).
        margin: what the user accepts to lose, in (0, 1).
        alpha: one-sided level; of one look, if there are several (`spending`).

    Raises:
        ConfigError: the margin or level is impossible, the episodes differ, scores are outside [0, 1], or there are
            fewer than five environment seeds.
    """
    _check_levels(margin, alpha)
    pairs = _shared(candidate, full)
    own, base = (np.array([float(scores[pair]) for pair in pairs]) for scores in (candidate, full))
    for scores in (own, base):
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ConfigError("scores must lie in [0, 1]: a margin on another scale says nothing")
    differences = cluster_means((own - base).tolist(), [environment for _, environment in pairs])
    n = len(differences)
    if n < FEWEST:
        raise ConfigError(f"{n} environment seeds decide nothing: roll out at least {FEWEST}")
    successes = n == len(pairs) and bool(np.isin([own, base], (0.0, 1.0)).all())
    test, method = (tango, "Tango") if successes else (gaffke, "Gaffke")
    p_value = test(differences, -margin)
    refuted = test(-differences, margin) <= alpha
    seeds = seeds_needed(test, differences, margin, alpha)
    return Verdict(
        result="shown" if p_value <= alpha else "refuted" if refuted else "not shown",
        difference=float(differences.mean()),
        low=lower_bound(test, differences, alpha),
        high=upper_bound(test, differences, alpha),
        p_value=p_value,
        margin=margin,
        alpha=alpha,
        pairs=len(pairs),
        environment_seeds=n,
        method=method,
        pairs_needed=None if seeds is None else math.ceil(seeds * len(pairs) / n),
    )


def least_pairs(margin: float, alpha: float) -> int:
    """Environment seeds with which it is just shown if no pair differs.

    A failure in a part `margin` of all episodes leaves n pairs alike with probability (1 - margin)^n. That is the least
    for Gaffke's test; Tango's approximation is content with a few less.

    Raises:
        ConfigError: the margin or level is impossible.
    """
    _check_levels(margin, alpha)
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def seeds_needed(test: PairedTest, differences: np.ndarray, margin: float, alpha: float) -> int | None:
    """Environment seeds with which `test` would succeed with probability `POWER`, were `differences` typical.

    It has to succeed also where the mean falls short by as many standard errors as chance allows.
    """
    if differences.mean() <= -margin:
        return None
    spread = float(differences.std(ddof=1) * stats.norm.ppf(POWER))

    def enough(n: int) -> bool:
        counts = np.full(len(differences), n / len(differences))
        return test(differences, spread / math.sqrt(n) - margin, counts) <= alpha

    low, high = FEWEST - 1, FEWEST
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_levels(margin: float, alpha: float) -> None:
    for name, value, usual in (("margin", margin, 0.05), ("alpha", alpha, 0.05)):
        if not 0 < value < 1:
            raise ConfigError(f"{name}={value} is not possible: use a number between 0 and 1, such as {usual}")


def _shared(candidate: Mapping[Pair, float], full: Mapping[Pair, float]) -> list[Pair]:
    if not candidate or not full:
        raise ConfigError("no episodes to compare: roll out the candidate and the full policy first")
    other = sorted(candidate.keys() ^ full.keys())
    if other:
        raise ConfigError(
            f"{len(other)} episodes were rolled out on one side only, such as noise seed {other[0][0]} with "
            f"environment seed {other[0][1]}: compare the same episodes"
        )
    return sorted(candidate)
