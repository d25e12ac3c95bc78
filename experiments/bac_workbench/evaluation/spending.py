"""Alpha spending: how strict each of several looks at growing data must be, so that all together keep one level.

Lan and DeMets (1983). A test that looks five times at level 0.05 and stops at the first success errs in 14 % of cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from diffusion_policy.common.config import ConfigError

#: how many standard deviations the recursive integration covers, and on how many points
REACH, POINTS = 8.0, 301


def obrien_fleming(fraction: float, alpha: float) -> float:
    """One-sided level spent once `fraction` of the data are there: hardly any early, almost all at the end.

    Lan and DeMets (1983), example 1, whose boundary is like O'Brien and Fleming's.
    """
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(fraction)))


def pocock(fraction: float, alpha: float) -> float:
    """Likewise, about the same at each look; Lan and DeMets (1983), example 2, whose boundary is like Pocock's."""
    return float(alpha * np.log(1 + (np.e - 1) * fraction))


SPENDING = {"obrien_fleming": obrien_fleming, "pocock": pocock}


def spending(information_fractions: Sequence[float], alpha: float, kind: str = "pocock") -> list[float]:
    """The one-sided nominal level of each look.

    Use each as the `alpha` of the test at that look and stop at the first success. Stopping earlier for another reason,
    such as futility, only lowers the overall level. The boundaries hold for sums of independent observations, by
    recursive integration (Armitage, McPherson and Rowe 1969).

    Args:
        information_fractions: part of the largest sample that is there at each look, increasing, at most 1.
        alpha: overall one-sided level.
        kind: 'pocock' or 'obrien_fleming'.

    Raises:
        ConfigError: fractions that do not increase within (0, 1], a level outside (0, 1), or another kind.
    """
    times = np.asarray(information_fractions, dtype=float)
    if times.size == 0 or not (np.diff(times, prepend=0.0) > 0).all() or not times[-1] <= 1 + 1e-9:
        raise ConfigError(
            f"looks at {list(information_fractions)} of the data: give parts that increase from 0 up to 1"
        )
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha={alpha} is no level: use a number between 0 and 1, such as 0.05")
    if kind not in SPENDING:
        raise ConfigError(f"spending={kind} is unknown: use {' or '.join(SPENDING)}")
    levels, spent, before = [], 0.0, 0.0
    unit_nodes, unit_weights = np.polynomial.legendre.leggauss(POINTS)
    # The density of the sum at the look before, where it has not crossed its boundary; a sum of variance t.
    grid, mass = np.zeros(1), np.ones(1)
    for time in times:
        step = np.sqrt(time - before)
        quota = SPENDING[kind](min(time, 1.0), alpha) - spent

        def excess(boundary: float, grid=grid, mass=mass, step=step, quota=quota) -> float:
            return float(mass @ stats.norm.sf((boundary - grid) / step)) - quota

        reach = REACH * np.sqrt(time)
        crossed = excess(reach) < 0  # else the quota is too small to be spent at all
        boundary = float(optimize.brentq(excess, -reach, reach, xtol=1e-10)) if crossed else reach
        levels.append(float(stats.norm.sf(boundary / np.sqrt(time))) if crossed else 0.0)
        half = (boundary + reach) / 2
        nodes = unit_nodes * half + (boundary - reach) / 2
        mass = unit_weights * half * (stats.norm.pdf((nodes[:, None] - grid) / step) / step @ mass)
        grid, spent, before = nodes, spent + max(quota, 0.0) * crossed, time
    return levels
