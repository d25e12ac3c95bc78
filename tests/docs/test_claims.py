"""docs/results/claims.md: a claim's verdict follows from the episodes."""

from __future__ import annotations

import numpy as np
import pytest

from bac_workbench.reporting.stored import TaskResults
from docs.generate.claims import ABSENT, HOLDS, NOT, OPEN, SCORED, above, faster, not_worse, worse
from docs.generate.claims_page import anchor, claims_page, read_figures
from docs.generate.frontier import stored


def task(**scores):
    """Results of methods whose scores [noise seeds, states] are given."""
    rows = []
    for method, values in scores.items():
        by_seed = {
            str(seed): {str(100 + state): float(value) for state, value in enumerate(row)}
            for seed, row in enumerate(np.asarray(values))
        }
        rows.append({"method": method, "sampler": "ddpm100", "scores": by_seed, "n_episodes": int(np.size(values))})
    return TaskResults("pusht_lowdim", rows, {})


def scores(mean, seed, states=60):
    return np.clip(mean + 0.05 * np.random.default_rng(seed).standard_normal((2, states)), 0, 1)


def test_a_better_method_is_found_better_and_an_equal_one_is_left_open():
    results = task(good=scores(0.8, 0), bad=scores(0.6, 1), same=scores(0.8, 2))
    assert above("good", "bad")(results).verdict == HOLDS
    assert above("bad", "good")(results).verdict == NOT
    assert above("good", "same")(results).verdict == OPEN
    assert above("good", "bad")(results).pairs == 120
    assert above("good", "absent")(results).verdict == ABSENT


def test_only_episodes_that_both_have_are_compared():
    results = task(one=scores(0.8, 0), other=scores(0.8, 0)[:1, :30])
    found = above("one", "other")(results)
    assert found.pairs == 30 and found.verdict == OPEN and found.number.startswith(("+0.000", "-0.000"))


@pytest.mark.parametrize(
    "result, kept, lost", [("shown", HOLDS, NOT), ("refuted", NOT, HOLDS), ("not shown", OPEN, OPEN)]
)
def test_verdicts_at_the_margin_are_those_of_the_comparison(result, kept, lost):
    results = task(bac=scores(0.5, 0))
    results.rows[0] |= {
        "noninferiority": {"result": result},
        "paired_difference": {"mean": -0.1, "low": -0.2, "high": 0.0},
    }
    assert not_worse("bac")(results).verdict == kept and worse("bac")(results).verdict == lost
    assert not_worse("bac")(results).number == "-0.100 [-0.200, +0.000]"
    assert faster("bac", 3.4)(results).verdict == ABSENT  # nothing was timed


def test_the_page_has_every_claim_and_links_to_it():
    page = claims_page()
    for number, claim in enumerate(SCORED, start=1):
        assert f"## {number} {claim.title}" in page and f"(#{anchor(number, claim)})" in page
    assert read_figures("pusht_lowdim") is not None and "The error surge sits in" in page
    assert len(stored()) == 5
