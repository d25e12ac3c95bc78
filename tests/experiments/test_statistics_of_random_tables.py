"""Intervals and tests agree with independent formulas on random tables of episodes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bac_workbench.evaluation.discordance import mcnemar, sign_flip
from bac_workbench.evaluation.statistics import bootstrap_interval, clustered_difference, rate_interval

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_a_rate_has_the_interval_that_scipy_gives(pairs):
    successes = [own for own, _ in pairs]
    found = rate_interval(successes)
    known = stats.binomtest(sum(successes), len(successes)).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-9)


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(pairs):
    own, base = (np.array(side, dtype=float) for side in zip(*pairs))
    found = mcnemar(own, base, range(len(own)))
    assert (found.gained, found.lost) == (int(((own == 1) & (base == 0)).sum()), int(((own == 0) & (base == 1)).sum()))
    differ = found.gained + found.lost
    assert found.p_value == pytest.approx(stats.binomtest(found.gained, differ).pvalue if differ else 1.0)
    assert mcnemar(base, own, range(len(own))).p_value == pytest.approx(found.p_value)


@given(st.lists(st.integers(-3, 3), max_size=9))
@settings(deadline=None, max_examples=60)
def test_of_clusters_every_choice_of_signs_is_counted(surplus):
    sums = [abs(np.dot(signs, surplus)) for signs in itertools.product((-1, 1), repeat=len(surplus))]
    known = np.mean([value >= abs(sum(surplus)) for value in sums])
    assert sign_flip(np.array(surplus, dtype=int)) == pytest.approx(known)


def test_pairs_of_one_environment_seed_count_as_one_observation():
    own, base = [1.0] * 12, [0.0] * 12
    assert mcnemar(own, base, range(12)).p_value == pytest.approx(2 / 2**12)
    assert mcnemar(own, base, [0, 1] * 6).p_value == pytest.approx(2 / 2**2)
    for wrong in ([0.5] * 12, [1.0] * 11):
        with pytest.raises(ValueError):
            mcnemar(wrong, base, range(12))


def test_mcnemar_keeps_its_level_also_for_clusters():
    rng = np.random.default_rng(0)
    starts = rng.random((500, 40, 1)) * 0.8 + 0.1  # some initial states are harder than others
    own, base = ((rng.random((500, 40, 2)) < starts).astype(float) for _ in range(2))
    clusters = np.repeat(np.arange(40), 2)
    rejected = [mcnemar(a.ravel(), b.ravel(), clusters).p_value <= 0.05 for a, b in zip(own, base)]
    assert 0.01 < np.mean(rejected) < 0.07


@pytest.mark.parametrize("seed", range(4))
def test_the_bootstrap_is_near_the_t_interval_of_paired_differences(seed):
    rng = np.random.default_rng(seed)
    base = rng.random(150)
    own = np.clip(base + 0.05 * rng.standard_normal(150), 0, 1)
    low, high = bootstrap_interval(own, base, range(150))
    known = stats.ttest_rel(own, base).confidence_interval()
    t = clustered_difference(own, base, range(150))
    assert (t.low, t.high) == pytest.approx((known.low, known.high))
    assert (low, high) == pytest.approx((known.low, known.high), abs=0.15 * (known.high - known.low))
    assert bootstrap_interval(own, base, range(150)) == (low, high)


def test_the_bootstrap_resamples_clusters_not_episodes():
    rng = np.random.default_rng(5)
    base, own = np.repeat(rng.random(40), 5), np.repeat(rng.random(40), 5)  # five episodes that say the same
    clusters = np.repeat(np.arange(40), 5)
    found = bootstrap_interval(own, base, clusters)
    assert found == pytest.approx(bootstrap_interval(own[::5], base[::5], range(40)))
    alone = bootstrap_interval(own, base, range(200))
    assert alone[1] - alone[0] < 0.6 * (found[1] - found[0])


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7]])
def test_without_spread_there_is_nothing_to_resample(values):
    assert bootstrap_interval(values, [0.5] * len(values), range(len(values))) is None
    with pytest.raises(ValueError):
        bootstrap_interval(values, [0.5] * len(values), range(len(values) + 1))
