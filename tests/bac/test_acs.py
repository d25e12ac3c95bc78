"""Adaptive caching schedules: the dynamic program against brute force, and the authors' results."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.acs import OBJECTIVES, acs_steps, acs_value, blockwise_acs, unified_acs
from bac.blocks import decoder_blocks
from bac.schedule import Provenance, Schedule, ScheduleError
from bac.similarity import METRICS, pairwise

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tiny_lowdim"


def random_matrix(seed: int, n_steps: int, metric: str = "cosine", symmetric: bool = True) -> np.ndarray:
    matrix = np.random.default_rng(seed).uniform(-1 if metric == "cosine" else 0, 1, (n_steps, n_steps))
    if symmetric:
        matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, METRICS[metric].identical)
    return matrix


def objective_by_definition(matrix, steps, objective) -> float:
    """The sums of the module's docstring, term by term."""
    total = 0.0
    for start, end in zip(steps, [*steps[1:], len(matrix)]):
        if objective == "cached_to_skipped":
            total += sum(matrix[start][t] for t in range(start, end))
        else:
            total += sum(matrix[k][k - 1] for k in range(start + 1, end))
    return total


def all_choices(n_steps, budget):
    return [[0, *rest] for rest in itertools.combinations(range(1, n_steps), budget - 1)]


def walk_matrices(blocks, n_steps=20, metric="cosine"):
    rng = np.random.default_rng(7)
    return {name: pairwise(rng.standard_normal((n_steps, 3, 4)).cumsum(0), metric) for name in blocks}


# ---- one block -------------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=150, database=None)
@given(
    st.integers(1, 9), st.data(), st.sampled_from(sorted(METRICS)), st.sampled_from(OBJECTIVES), st.integers(0, 10**6),
    st.booleans(),
)  # fmt: skip
def test_dynamic_program_equals_brute_force(n_steps, data, metric, objective, seed, symmetric):
    budget = data.draw(st.integers(1, n_steps))
    matrix = random_matrix(seed, n_steps, metric, symmetric)
    steps = acs_steps(matrix, budget, metric, objective)
    values = [objective_by_definition(matrix, choice, objective) for choice in all_choices(n_steps, budget)]
    best = max(values) if METRICS[metric].maximise else min(values)
    assert steps in all_choices(n_steps, budget)
    assert acs_value(matrix, steps, objective) == pytest.approx(best, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=80, database=None)
@given(st.integers(1, 8), st.data(), st.sampled_from(OBJECTIVES), st.integers(0, 10**6))
def test_ties_go_to_the_smaller_step_from_the_last_interval_back(n_steps, data, objective, seed):
    budget = data.draw(st.integers(1, n_steps))
    # Few small integers: many exact ties.
    matrix = np.random.default_rng(seed).integers(0, 3, (n_steps, n_steps)).astype(float)
    np.fill_diagonal(matrix, 0)
    choices = all_choices(n_steps, budget)
    best = min(objective_by_definition(matrix, choice, objective) for choice in choices)
    tied = [choice for choice in choices if objective_by_definition(matrix, choice, objective) == best]
    assert acs_steps(matrix, budget, "l1", objective) == min(tied, key=lambda choice: choice[::-1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_extreme_budgets(objective):
    matrix = random_matrix(0, 12)
    assert acs_steps(matrix, 1, "cosine", objective) == [0]
    assert acs_steps(matrix, 12, "cosine", objective) == list(range(12))
    assert acs_steps(np.ones((5, 5)), 3, "cosine", objective) == [0, 1, 2]  # everything ties
    assert acs_steps(np.ones((1, 1)), 1, "cosine", objective) == [0]


def test_finds_the_phases_of_a_piecewise_constant_feature():
    phases = np.repeat([0, 1, 2, 3], [3, 10, 2, 5])
    features = np.eye(4)[phases]
    for metric in METRICS:
        for objective in OBJECTIVES:
            assert acs_steps(pairwise(features, metric), 4, metric, objective) == [0, 3, 13, 15]


def test_consecutive_objective_skips_the_largest_single_changes():
    matrix = random_matrix(3, 30)
    change = np.diagonal(matrix, -1)  # [k-1] = s[k, k-1]
    expected = sorted(1 + np.argsort(change)[:6])
    assert acs_steps(matrix, 7, "cosine", "consecutive") == [0, *expected]


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(st.integers(2, 25), st.integers(0, 10**6), st.sampled_from(["l1", "cosine"]))
def test_a_larger_budget_is_never_worse(n_steps, seed, metric):
    matrix = random_matrix(seed, n_steps, metric)
    values = [acs_value(matrix, acs_steps(matrix, m, metric)) for m in range(1, n_steps + 1)]
    gains = np.diff(values) if METRICS[metric].maximise else -np.diff(values)
    assert (gains >= -1e-12).all()


def test_row_is_the_cached_step():
    matrix = np.ones((4, 4))
    matrix[0, 2:] = 0.0  # step 0's output does not serve steps 2 and 3 ...
    matrix[2:, 0] = 0.5
    assert acs_value(matrix, [0]) == 2.0  # ... whatever the transposed entries say
    assert acs_steps(matrix, 2) == [0, 1]


def test_the_matrix_is_not_modified():
    matrix = random_matrix(1, 10)
    before = matrix.copy()
    acs_steps(matrix, 3)
    acs_steps(np.asfortranarray(matrix), 3, "cosine", "consecutive")
    assert np.array_equal(matrix, before)


@pytest.mark.parametrize("budget", [0, -1, 7, 2.0, True, None, "3"])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(ValueError, match=r"budget must be an integer in 1\.\.6"):
        acs_steps(np.ones((6, 6)), budget)


@pytest.mark.parametrize(
    ("matrix", "metric", "message"),
    [
        (np.ones((4, 5)), "cosine", "square"),
        (np.ones(4), "cosine", "square"),
        (np.ones((0, 0)), "cosine", "square"),
        (np.full((3, 3), np.nan), "cosine", "NaN"),
        (np.where(np.eye(3), 0, np.inf), "l1", "infinite"),
        (np.ones((3, 3)), "l1", "does not hold metric 'l1'"),
        (np.zeros((3, 3)), "cosine", "does not hold metric 'cosine'"),
        (np.ones((3, 3)), "dot", "unknown metric 'dot'"),
    ],
)
def test_bad_matrices_are_refused(matrix, metric, message):
    with pytest.raises(ValueError, match=message):
        acs_steps(matrix, 1, metric)


def test_bad_objective_and_steps_are_refused():
    with pytest.raises(ValueError, match="unknown objective 'greedy': choose one of cached_to_skipped, consecutive"):
        acs_steps(np.ones((3, 3)), 2, objective="greedy")
    for steps in ([], [1], [0, 2, 1], [0, 3], [0, 0]):
        with pytest.raises(ValueError, match="ascend from 0"):
            acs_value(np.ones((3, 3)), steps)


# ---- all blocks ------------------------------------------------------------------------------------------------------


def test_blockwise_schedules_each_block_by_its_own_matrix():
    matrices = walk_matrices(decoder_blocks(2))
    known = Provenance(checkpoint_hash="abc", seeds=(1, 2), extras={"note": 1})
    shuffled = dict(reversed(list(matrices.items())))
    schedule = blockwise_acs(shuffled, 5, provenance=known)
    assert schedule.blocks == decoder_blocks(2)
    for name, matrix in matrices.items():
        assert list(schedule.steps_of(name)) == acs_steps(matrix, 5)
    provenance = schedule.provenance
    assert (provenance.method, provenance.budget) == ("blockwise_acs", 5)
    assert (provenance.metric, provenance.objective) == ("cosine", "cached_to_skipped")
    assert (provenance.checkpoint_hash, provenance.seeds, provenance.extras) == ("abc", (1, 2), {"note": 1})
    assert blockwise_acs(matrices, 20) == Schedule.full(decoder_blocks(2), 20)


def test_unified_shares_the_first_self_attentions_steps():
    matrices = walk_matrices(decoder_blocks(2), metric="l1")
    schedule = unified_acs(matrices, 4, "l1")
    shared = tuple(acs_steps(matrices["decoder.layers.0.sa"], 4, "l1"))
    assert {schedule.steps_of(name) for name in schedule.blocks} == {shared}
    assert schedule.provenance.extras == {"source": "decoder.layers.0.sa"}
    other = unified_acs(matrices, 4, "l1", source="decoder.layers.1.ca")
    assert list(other.steps_of("decoder.layers.0.ffn")) == acs_steps(matrices["decoder.layers.1.ca"], 4, "l1")
    only = {"decoder.layers.0.sa": matrices["decoder.layers.0.sa"]}
    assert unified_acs(only, 4, "l1", blocks=decoder_blocks(2)) == schedule
    with pytest.raises(ValueError, match="no similarity matrix for 'decoder.layers.0.sa'"):
        unified_acs({"decoder.layers.1.sa": matrices["decoder.layers.1.sa"]}, 4, "l1")


def test_forced_refresh_is_off_unless_asked_for():
    matrices = walk_matrices(decoder_blocks(1))
    for method in (blockwise_acs, unified_acs):
        plain, refreshed = method(matrices, 3), method(matrices, 3, forced_refresh=[19])
        assert refreshed == plain.with_refresh([19])
        assert refreshed.provenance.forced_refresh == (19,) and plain.provenance.forced_refresh == ()


def test_errors_name_the_block():
    matrices = walk_matrices(decoder_blocks(1))
    matrices["decoder.layers.0.ca"] = np.full((20, 20), np.nan)
    with pytest.raises(ValueError, match="decoder.layers.0.ca: .*NaN"):
        blockwise_acs(matrices, 3)
    with pytest.raises(ValueError, match="same size"):
        blockwise_acs({**matrices, "decoder.layers.0.ca": np.ones((19, 19))}, 3)
    with pytest.raises(ValueError, match="no blocks"):
        blockwise_acs({}, 3)
    with pytest.raises(ScheduleError, match="names a sampler with 100"):
        blockwise_acs(walk_matrices(decoder_blocks(1)), 3, provenance=Provenance(sampler_steps=100))


# ---- the authors' results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l1", "mse"])
def test_golden_objective_values(metric):
    expected = json.loads((GOLDEN / "case.json").read_text())["acs_steps"][metric]
    compared = 0
    with np.load(GOLDEN / "similarity.npz") as matrices:
        for budget, per_block in expected.items():
            for name, theirs in per_block.items():
                matrix = matrices[f"{name}|{metric}"]
                ours = acs_steps(matrix, int(budget), metric)
                assert len(ours) == len(theirs) == int(budget)
                assert acs_value(matrix, ours) == pytest.approx(acs_value(matrix, theirs), rel=1e-13)
                assert ours == theirs  # these matrices have no ties, so the steps agree too
                compared += 1
    assert compared == 5 * 9
