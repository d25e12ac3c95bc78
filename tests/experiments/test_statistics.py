"""Intervals cover what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from bac_workbench.evaluation.statistics import mean_interval, paired_difference, rate_interval, score_interval


def test_wilson_interval_against_known_values():
    estimate = rate_interval([True] * 45 + [False] * 5)
    assert (estimate.mean, round(estimate.low, 4), round(estimate.high, 4)) == (0.9, 0.7864, 0.9565)
    assert rate_interval([True] * 50).low == pytest.approx(0.9286, abs=1e-4)
    assert rate_interval([False] * 50).low == 0.0


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    samples = rng.beta(2, 1, size=(400, 50))
    hits = [e.low <= 2 / 3 <= e.high for e in map(mean_interval, samples)]
    assert 0.92 <= np.mean(hits) <= 0.98


def test_paired_difference_is_narrower_than_unpaired():
    rng = np.random.default_rng(1)
    base = rng.random(50)
    better = base + 0.05 + 0.01 * rng.standard_normal(50)
    paired = paired_difference(better, base)
    assert paired.low > 0.04 and paired.high < 0.06
    with pytest.raises(ValueError, match="same episodes"):
        paired_difference(base, base[:3])


def test_successes_that_are_all_alike_still_have_an_interval():
    assert (score_interval([1.0] * 50).low, score_interval([1.0] * 50).high) == pytest.approx((0.9286, 1.0), abs=1e-4)
    same = paired_difference([1.0] * 50, [1.0] * 50)
    assert same.mean == 0.0 and same.low == -same.high and 0.03 < same.high < 0.04
    worse = paired_difference([0.0] * 30 + [1.0] * 20, [1.0] * 50)
    assert worse.mean == -0.6 and worse.low < -0.6 < worse.high < -0.4
    assert paired_difference([0.0] * 50, [1.0] * 50).low == -1.0


def test_intervals_of_paired_successes_cover():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        base, other = rng.random(50) < 0.95, rng.random(50) < 0.8
        estimate = paired_difference(other, base)
        hits.append(estimate.low <= -0.15 <= estimate.high)
    assert 0.93 <= np.mean(hits) <= 0.99


def test_one_episode_has_the_widest_interval_and_none_is_an_error():
    estimate = mean_interval([0.4], bounds=(0, 1))
    assert (estimate.low, estimate.high) == (0, 1)
    with pytest.raises(ValueError, match="no episodes"):
        rate_interval([])
