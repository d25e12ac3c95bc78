"""The bubbling union: error scores, selection, repair, and the authors' results."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.acs import blockwise_acs
from bac.blocks import decoder_blocks, encoder_blocks, parse
from bac.bua import bac, bubbling_union, error_scores, select_blocks
from bac.schedule import Schedule
from bac.similarity import pairwise

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tiny_lowdim"
BLOCKS = decoder_blocks(3)


def distinct_schedule(blocks=BLOCKS) -> Schedule:
    """Every block updates at step 0 and at one step of its own."""
    return Schedule.from_steps({name: [0, 1 + i] for i, name in enumerate(blocks)}, 1 + len(blocks))


def favouring(*names, blocks=BLOCKS):
    """Scores that rank the given blocks first, in this order."""
    return {name: 10.0 - names.index(name) if name in names else 1.0 for name in blocks}


def steps(schedule, layer_and_kind):
    return schedule.steps_of(f"decoder.layers.{layer_and_kind}")


# ---- error scores and selection --------------------------------------------------------------------------------------


def test_error_score_is_the_mean_over_pairs_of_different_steps():
    features = np.array([[0.0, 0.0], [1.0, 3.0], [0.0, 4.0]])  # [steps, features]
    scores = error_scores({"decoder.layers.0.sa": pairwise(features, "l1")})
    assert scores == {"decoder.layers.0.sa": pytest.approx((2.0 + 2.0 + 1.0) / 3)}


def test_error_scores_come_in_execution_order():
    matrices = {name: np.ones((2, 2)) - np.eye(2) for name in reversed(BLOCKS)}
    assert tuple(error_scores(matrices)) == BLOCKS


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "metric 'l1'"),  # a similarity
        (-np.ones((3, 3)) + np.eye(3), "metric 'l1'"),
        (np.where(np.eye(3), 0, np.nan), "finite"),
        (np.zeros((3, 2)), r"\[steps, steps\]"),
        (np.zeros((1, 1)), "2 or more steps"),
    ],
)
def test_error_scores_refuse_other_matrices(matrix, message):
    with pytest.raises(ValueError, match=f"decoder.layers.0.sa: .*{message}"):
        error_scores({"decoder.layers.0.sa": matrix})


def test_selection_is_by_score_then_execution_order():
    scores = dict(zip(reversed(BLOCKS), [1.0, 3.0, 2.0, 3.0, 1.0, 0.0, 3.0, 0.0, 0.0]))
    tied = ("decoder.layers.0.ffn", "decoder.layers.1.ffn", "decoder.layers.2.ca")
    assert select_blocks(scores, 3) == tied
    assert select_blocks(scores, 2) == tied[:2]
    assert select_blocks(scores, 0) == ()
    assert set(select_blocks(scores, 9)) == set(BLOCKS)


@pytest.mark.parametrize("top_k", [-1, 10, 1.0, None, True])
def test_bad_top_k_is_refused(top_k):
    with pytest.raises(ValueError, match=r"top_k must be an integer in 0\.\.9 \(the number of blocks\)"):
        select_blocks(favouring(), top_k)


def test_nan_scores_are_refused():
    with pytest.raises(ValueError, match="decoder.layers.1.sa is NaN"):
        select_blocks({**favouring(), "decoder.layers.1.sa": float("nan")}, 1)


# ---- the union -------------------------------------------------------------------------------------------------------


def test_attention_takes_the_steps_of_its_own_and_later_ffns():
    repaired = bubbling_union(distinct_schedule(), favouring("decoder.layers.1.sa"), 1)
    assert steps(repaired, "1.sa") == (0, 4, 6, 9)  # its own 4, FFN 1 at 6, FFN 2 at 9; not FFN 0 at 3
    for name in set(BLOCKS) - {"decoder.layers.1.sa"}:
        assert repaired.steps_of(name) == distinct_schedule().steps_of(name)
    assert repaired.provenance.method == "bac"
    assert (repaired.provenance.top_k, repaired.provenance.repaired) == (1, ("decoder.layers.1.sa",))


def test_ffn_takes_the_steps_of_later_ffns():
    repaired = bubbling_union(distinct_schedule(), favouring("decoder.layers.0.ffn", "decoder.layers.2.ffn"), 2)
    assert steps(repaired, "0.ffn") == (0, 3, 6, 9)
    assert steps(repaired, "2.ffn") == (0, 9)  # nothing downstream


def test_unions_use_the_original_steps_of_ffns():
    # Once FFN 0 is repaired it updates at 6 and 9 too. The attention before it takes those steps from FFNs 1 and 2;
    # without them (only layer 0 left) a repaired FFN must not pass anything on.
    schedule = Schedule.from_steps(
        {"decoder.layers.0.ffn": [0, 1], "decoder.layers.1.sa": [0, 2], "decoder.layers.1.ffn": [0, 3]}, 4
    )
    chosen = ("decoder.layers.1.ffn", "decoder.layers.0.ffn", "decoder.layers.1.sa")
    repaired = bubbling_union(schedule, favouring(*chosen, blocks=schedule.blocks), 3)
    assert [repaired.steps_of(name) for name in schedule.blocks] == [(0, 1, 3), (0, 2, 3), (0, 3)]


def test_encoder_only_models_are_repaired_too():
    blocks = encoder_blocks(2)
    repaired = bubbling_union(distinct_schedule(blocks), favouring("encoder.layers.0.sa", blocks=blocks), 1)
    assert repaired.steps_of("encoder.layers.0.sa") == (0, 1, 2, 4)


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(st.integers(0, 10**6), st.integers(0, 9))
def test_invariants_of_the_union(seed, top_k):
    rng = np.random.default_rng(seed)
    updates = rng.random((15, 9)) < 0.2
    updates[0] = True
    schedule = Schedule(updates, BLOCKS)
    scores = dict(zip(BLOCKS, rng.random(9)))
    repaired = bubbling_union(schedule, scores, top_k)
    assert (repaired.updates >= schedule.updates).all()
    chosen = repaired.provenance.repaired
    assert len(chosen) == top_k
    for name in BLOCKS:
        ffns = {k for other in BLOCKS if other.endswith("ffn") and parse(other).layer >= parse(name).layer
                for k in schedule.steps_of(other)}  # fmt: skip
        expected = set(schedule.steps_of(name)) | (ffns if name in chosen else set())
        assert set(repaired.steps_of(name)) == expected
    assert repaired.active_steps == schedule.active_steps  # a repair adds no active step


def test_scores_must_match_the_schedule():
    with pytest.raises(ValueError, match="only one has decoder.layers.0.sa"):
        bubbling_union(distinct_schedule(), dict.fromkeys(BLOCKS[1:], 1.0), 1)


# ---- the whole method ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(5)
    features = {name: rng.standard_normal((20, 3, 4)).cumsum(0) for name in BLOCKS}
    return {metric: {name: pairwise(f, metric) for name, f in features.items()} for metric in ("cosine", "l1")}


def test_bac_without_repair_is_blockwise_acs(profile):
    assert bac(profile["cosine"], profile["l1"], 4, top_k=0) == blockwise_acs(profile["cosine"], 4)


@pytest.mark.parametrize("top_k", [1, 5, 9])
def test_bac_is_acs_then_bua(profile, top_k):
    schedule = bac(profile["cosine"], profile["l1"], 4, top_k)
    expected = bubbling_union(blockwise_acs(profile["cosine"], 4), error_scores(profile["l1"]), top_k)
    assert schedule == expected and schedule.provenance == expected.provenance
    assert schedule.provenance.budget == 4 and len(schedule.provenance.repaired) == top_k


def test_forced_refresh_adds_one_step_to_every_block(profile):
    plain = bac(profile["cosine"], profile["l1"], 4, 2)
    refreshed = bac(profile["cosine"], profile["l1"], 4, 2, forced_refresh=[19])
    assert refreshed == plain.with_refresh([19]) and refreshed.updates[19].all()
    assert plain.provenance.forced_refresh == ()


def test_full_budget_is_no_cache(profile):
    assert bac(profile["cosine"], profile["l1"], 20, 5) == Schedule.full(BLOCKS, 20)


# ---- the authors' results --------------------------------------------------------------------------------------------


def test_golden_scores_selection_and_steps():
    case = json.loads((GOLDEN / "case.json").read_text())
    with np.load(GOLDEN / "similarity.npz") as stored:
        matrices = {metric: {name: stored[f"{name}|{metric}"] for name in BLOCKS} for metric in ("cosine", "l1")}
    assert error_scores(matrices["l1"]) == pytest.approx(case["block_error_l1"], rel=1e-12)
    schedule = bac(matrices["cosine"], matrices["l1"], budget=10, top_k=case["bua"]["top_k"])
    assert list(schedule.provenance.repaired) == case["bua"]["selected"]
    assert {name: list(schedule.steps_of(name)) for name in BLOCKS} == case["bua"]["steps"]
