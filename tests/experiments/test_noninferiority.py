"""Verdicts: not worse by more than a margin."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from bac_workbench.evaluation.noninferiority import least_pairs, noninferior, seeds_needed
from bac_workbench.evaluation.paired_tests import gaffke
from bac_workbench.evaluation.spending import spending
from diffusion_policy.common.config import ConfigError


def episodes(scores, noise_seed=0):
    return {(noise_seed, 100_000 + i): float(score) for i, score in enumerate(scores)}


def noisy(full, loss, spread=0.05, seed=0):
    rng = np.random.default_rng(seed)
    return {pair: float(np.clip(score - loss + spread * rng.normal(), 0, 1)) for pair, score in full.items()}


FULL = episodes(0.9 - 0.4 * np.random.default_rng(1).random(100))


def test_three_verdicts():
    shown = noninferior(noisy(FULL, 0.0), FULL, margin=0.05)
    assert shown.result == "shown" and shown.low > -0.05 and shown.p_value <= 0.05 and shown.method == "Gaffke"
    refuted = noninferior(noisy(FULL, 0.3), FULL, margin=0.05)
    assert refuted.result == "refuted" and refuted.high < -0.05 and refuted.pairs_needed is None
    unclear = noninferior(noisy(FULL, 0.03), FULL, margin=0.05)
    assert unclear.result == "not shown" and unclear.pairs_needed > unclear.pairs == 100
    assert str(unclear.pairs_needed) in str(unclear)
    assert json.loads(json.dumps(unclear.to_dict()))["difference"] == pytest.approx(-0.03, abs=0.02)


def test_a_policy_compared_with_itself_is_shown_only_with_enough_pairs():
    least = least_pairs(0.05, 0.05)
    assert least == 59  # the rule of three
    for n, result in ((least - 1, "not shown"), (least, "shown")):
        same = episodes([0.7] * n)
        verdict = noninferior(same, same, margin=0.05)
        assert verdict.result == result and verdict.pairs_needed == least and verdict.low < 0 < verdict.high


def test_successes_are_tested_as_such():
    full = episodes([1.0] * 90 + [0.0] * 10)
    candidate = episodes([1.0] * 88 + [0.0] * 2 + [1.0] * 2 + [0.0] * 8)
    verdict = noninferior(candidate, full, margin=0.1)
    assert (verdict.method, verdict.result, verdict.difference) == ("Tango", "shown", 0.0)


def test_noise_seeds_of_one_environment_are_not_independent():
    """The same episodes twice prove nothing more than once."""
    once = noninferior(noisy(FULL, 0.02), FULL)
    twice = noninferior(
        {(noise, seed): score for (_, seed), score in noisy(FULL, 0.02).items() for noise in (0, 1)},
        {(noise, seed): score for (_, seed), score in FULL.items() for noise in (0, 1)},
    )
    assert (twice.p_value, twice.low) == (pytest.approx(once.p_value), pytest.approx(once.low))
    assert (twice.pairs, twice.environment_seeds) == (200, 100) and twice.pairs_needed == 2 * once.pairs_needed


def test_the_planned_number_of_pairs_shows_it_about_four_times_in_five():
    rng = np.random.default_rng(0)
    sample = lambda n: 0.15 * rng.standard_normal(n).clip(-3, 3)
    planned = int(np.median([seeds_needed(gaffke, sample(100), 0.05, 0.05) for _ in range(11)]))
    shown = np.mean([gaffke(sample(planned), -0.05) <= 0.05 for _ in range(100)])
    assert 0.68 <= shown <= 0.95


@pytest.mark.parametrize("kind", ["pocock", "obrien_fleming"])
def test_several_looks_keep_the_level(kind):
    looks = [40, 80, 120, 160]
    levels = spending([n / looks[-1] for n in looks], 0.05, kind)
    sums = np.cumsum(np.random.default_rng(0).standard_normal((20_000, looks[-1])), axis=1)
    p_values = stats.norm.sf(sums[:, [n - 1 for n in looks]] / np.sqrt(looks))
    assert (p_values <= levels).any(axis=1).mean() == pytest.approx(0.05, abs=0.005)
    assert (p_values <= 0.05).any(axis=1).mean() > 0.1  # without spending


def test_looks_at_rare_failures_keep_the_level():
    looks = [60, 90, 120]
    levels = spending([0.5, 0.75, 1.0], 0.05)
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        differences = -(rng.random(120) < 0.05).astype(float)
        errors.append(any(gaffke(differences[:n], -0.05) <= level for n, level in zip(looks, levels)))
    assert np.mean(errors) <= 0.08


@pytest.mark.parametrize(
    ("kind", "boundaries"),
    [
        ("obrien_fleming", [4.877, 3.357, 2.680, 2.290, 2.031]),
        ("pocock", [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
)
def test_boundaries_are_those_of_the_published_tables(kind, boundaries):
    """Five looks, two-sided 0.05: as programs for Lan and DeMets' boundaries print them."""
    levels = spending([0.2, 0.4, 0.6, 0.8, 1.0], 0.025, kind)
    assert stats.norm.isf(levels) == pytest.approx(boundaries, abs=1.5e-3)
    assert spending([1.0], 0.025, kind) == pytest.approx([0.025])


@pytest.mark.parametrize(
    ("candidate", "options", "message"),
    [
        (FULL, {"margin": 0.0}, "margin=0.0"),
        (FULL, {"margin": 5}, "margin=5"),
        (FULL, {"alpha": 1.0}, "alpha=1.0"),
        ({}, {}, "no episodes"),
        (episodes([0.5] * 99), {}, "1 episodes were rolled out on one side only"),
        (episodes([0.5] * 100, noise_seed=1), {}, "on one side only"),
        (dict.fromkeys(FULL, 3.0), {}, r"lie in \[0, 1\]"),
        (dict.fromkeys(FULL, float("nan")), {}, r"lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_decided_is_an_error(candidate, options, message):
    with pytest.raises(ConfigError, match=message):
        noninferior(candidate, FULL, **options)


def test_too_few_environments_are_an_error():
    few = {(noise, seed): 1.0 for noise in range(10) for seed in range(4)}
    with pytest.raises(ConfigError, match="4 environment seeds decide nothing"):
        noninferior(few, few)


@pytest.mark.parametrize(
    ("fractions", "alpha", "kind"),
    [([], 0.05, "pocock"), ([0.5, 0.5], 0.05, "pocock"), ([0.5, 1.2], 0.05, "pocock"), ([1.0], 0.0, "pocock")]
    + [([1.0], 0.05, "haybittle")],
)
def test_impossible_looks_are_errors(fractions, alpha, kind):
    with pytest.raises(ConfigError):
        spending(fractions, alpha, kind)
