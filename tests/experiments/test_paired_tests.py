"""Tests of paired differences keep their level where Student's t does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from bac_workbench.evaluation.paired_tests import gaffke, lower_bound, tango, upper_bound


@pytest.mark.parametrize(("n", "failures", "rate"), [(50, 0, 0.05), (20, 2, 0.3), (200, 7, 0.05), (5, 1, 0.9)])
def test_on_failures_alone_gaffkes_test_is_the_binomial_test(n, failures, rate):
    differences = np.repeat([0.0, -1.0], [n - failures, failures])
    assert gaffke(differences, -rate) == pytest.approx(stats.binom.cdf(failures, n, rate), abs=1e-7)


def test_gaffkes_p_value_is_the_probability_it_says_it_is():
    rng = np.random.default_rng(0)
    differences = np.append(rng.normal(-0.02, 0.05, 40), [-0.8, -0.5])
    weights = rng.dirichlet(np.ones(43), 100_000)
    simulated = (weights @ np.append(differences, -1.0) <= -0.08).mean()
    assert gaffke(differences, -0.08) == pytest.approx(simulated, abs=0.006)


def rare_failures(rng, n):
    """Small differences and, of one episode in twenty, a total failure: mean -0.05."""
    return np.where(rng.random(n) < 0.05, -1.0, 0.0)


def skewed(rng, n):
    """Seven in ten are zero, the others losses of all sizes; mean -0.05."""
    return np.where(rng.random(n) < 0.3, -rng.beta(0.3, 1.5, n), 0.0)


def flips(rng, n):
    """Another mode, for better or worse; mean -0.05."""
    u = rng.random(n)
    return np.where(u < 0.125, -0.6, np.where(u > 1 - 1 / 24, 0.6, 0.0))


@pytest.mark.parametrize("law", [rare_failures, skewed, flips])
@pytest.mark.parametrize("n", [20, 60])
def test_a_candidate_at_the_margin_is_not_shown_more_often_than_alpha(law, n):
    rng = np.random.default_rng(0)
    rejections = np.mean([gaffke(law(rng, n), -0.05) <= 0.05 for _ in range(300)])
    assert rejections <= 0.075  # 0.05 and two standard errors of 300 trials


def test_students_t_would_show_what_is_not_so():
    rng = np.random.default_rng(0)
    samples = [rare_failures(rng, 20) for _ in range(300)]
    alike = np.mean([not sample.any() for sample in samples])
    assert alike > 0.3  # their interval has no width, so the test would succeed


def test_tangos_test_has_its_level_and_more_power():
    rng = np.random.default_rng(0)
    worse = rng.choice([-1.0, 0.0, 1.0], p=[0.10, 0.85, 0.05], size=(1000, 100))
    level = np.mean([tango(sample, -0.05) <= 0.05 for sample in worse])
    assert 0.03 <= level <= 0.065
    same = rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=(150, 100))
    found = {test: np.mean([test(sample, -0.05) <= 0.05 for sample in same]) for test in (tango, gaffke)}
    assert found[tango] > found[gaffke] > 0.2


@pytest.mark.parametrize(("gained", "lost", "n", "threshold"), [(1, 0, 44, -0.1), (4, 9, 60, -0.05), (7, 3, 50, 0.1)])
def test_tangos_p_value_is_that_of_the_score_test(gained, lost, n, threshold):
    """The variance follows from the likeliest probabilities whose difference is the threshold."""

    def unlikeliness(loss):
        gain = loss + threshold
        return -(gained * np.log(gain) + lost * np.log(loss) + (n - gained - lost) * np.log(1 - gain - loss))

    ends = max(0.0, -threshold) + 1e-9, (1 - threshold) / 2 - 1e-9
    loss = optimize.minimize_scalar(unlikeliness, bounds=ends, method="bounded", options={"xatol": 1e-10}).x
    error = np.sqrt((2 * loss + threshold - threshold**2) / n)
    expected = stats.norm.sf(((gained - lost) / n - threshold) / error)
    differences = np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost])
    assert tango(differences, threshold) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("test", [gaffke, tango])
def test_bounds_hold_where_all_pairs_agree(test):
    same = np.zeros(50)
    low, high = lower_bound(test, same, 0.05), upper_bound(test, same, 0.05)
    assert low == pytest.approx(-high) and -0.06 < low < -0.05
    for end in (np.ones(50), -np.ones(50)):
        assert -1.0 <= lower_bound(test, end, 0.05) <= end[0] <= upper_bound(test, end, 0.05) <= 1.0


@pytest.mark.parametrize("test", [gaffke, tango])
def test_a_bound_is_where_the_test_changes_its_mind(test):
    differences = np.repeat([-1.0, 1.0, 0.0], [6, 4, 50])
    low = lower_bound(test, differences, 0.05)
    assert test(differences, low - 1e-4) < 0.05 < test(differences, low + 1e-4)


@pytest.mark.parametrize("test", [gaffke, tango])
def test_counts_stand_for_repetitions(test):
    values, counts = np.array([-1.0, 0.0, 1.0]), np.array([3.0, 40.0, 2.0])
    assert test(values, -0.1, counts) == pytest.approx(test(np.repeat(values, counts.astype(int)), -0.1))
