"""Stored evaluations are compared in pairs."""

from __future__ import annotations

import json

import pytest

from bac_workbench.evaluation.comparison import compare
from bac_workbench.evaluation.comparison_tables import comparison_tables
from bac_workbench.evaluation.statistics import mean_interval
from diffusion_policy.common.config import ConfigError
from tests.experiments.stored_runs import stored


def test_pairs_by_seed_and_leaves_other_checkpoints_out(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7, 0.9], 24.7)
    stored(tmp_path, "bac", "bac_s10", [0.6, 0.8, 1.0], 4.2, updates=358)
    stored(tmp_path, "other", "bac_s10", [0.0, 0.0, 0.0], 4.2, checkpoint_hash="b")
    comparison = compare(tmp_path)
    rows = comparison.rows
    assert comparison.skipped == {"other": "checkpoint_hash b instead of a"}
    assert [row["method"] for row in rows] == ["full", "bac_s10"]
    assert rows[1]["paired_difference"]["mean"] == pytest.approx(0.1)
    assert rows[0]["paired_difference"] is None
    assert "| bac_s10 |" in (tmp_path / "comparison.md").read_text()
    assert [table.row_count for table in comparison_tables(rows)] == [2]


def test_a_verdict_says_whether_a_method_is_worse_by_less_than_the_margin(tmp_path):
    stored(tmp_path, "full", "full", [0.9] * 100, 24.7)
    stored(tmp_path, "close", "bac_s20", [0.89, 0.9] * 50, 7.0)
    stored(tmp_path, "far", "bac_s10", [0.7, 0.8] * 50, 4.2)
    stored(tmp_path, "spread", "bac_s7", [0.3, 1.0, 1.0, 1.0, 1.0] * 20, 3.1)
    stored(tmp_path, "few", "bac_s5", [0.9] * 4, 2.1)
    results = {row["run"]: row["noninferiority"] for row in compare(tmp_path).rows}
    assert results["full"] is None and results["few"] is None
    assert [results[run]["result"] for run in ("close", "far", "spread")] == ["shown", "refuted", "not shown"]
    assert (
        f"| not shown ({results['spread']['pairs_needed']} pairs may decide) |"
        in (tmp_path / "comparison.md").read_text()
    )


def test_a_policy_that_takes_longer_is_seen(tmp_path):
    for name, steps in (("full", 100), ("bac", 115)):
        path = stored(tmp_path, name, name, [1.0, 1.0], 24.7 if name == "full" else 4.2)
        content = json.loads(path.read_text())
        for row in content["episodes"]:
            row["env_steps"] = steps
        path.write_text(json.dumps(content))
    row = compare(tmp_path).rows[1]
    assert (row["env_steps"], row["reference_env_steps"]) == (115, 100)
    assert "| 115 (+15 %) |" in (tmp_path / "comparison.md").read_text()


def test_needs_the_full_policy(tmp_path):
    with pytest.raises(ConfigError, match="cache=full first"):
        compare(tmp_path)
    stored(tmp_path, "uniform", "uniform_s10", [0.5, 0.7], 2.8, updates=240)
    with pytest.raises(ConfigError, match="cache=full\\s+first.*uniform .uniform_s10, sampler ddpm100: it caches"):
        compare(tmp_path)


@pytest.mark.parametrize(
    "lie, reason",
    [
        (
            {"sampler": "ddim8", "updates": 192, "full": 192, "sampler_steps": 8},
            "the checkpoint's own sampler is ddpm100",
        ),
        (
            {"updates": 192, "full": 192, "sampler_steps": 8, "n_blocks": 24, "checkpoint_sampler": "ddim16"},
            "own sampler is ddim16",
        ),
        ({"updates": 192, "full": 192}, "192 block updates of 2400"),
        ({"updates": 240}, "240 block updates of 2400"),
    ],
)
def test_what_is_called_full_has_to_be_full(tmp_path, lie, reason):
    stored(tmp_path, "full", "full", [0.5, 0.7], 2.0, **lie)
    stored(tmp_path, "uniform", "uniform_s10", [0.5, 0.7], 2.8, updates=240)
    for named in (None, "full"):
        with pytest.raises(ConfigError, match=reason):
            compare(tmp_path, named)


def test_runs_of_several_noise_seeds_are_pooled_and_paired_seed_by_seed(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7, 0.9], 24.7)
    stored(tmp_path, "full-seed1", "full", [0.6, 0.8, 1.0], 24.7, seed=1)
    stored(tmp_path, "bac", "bac_s10", [0.4, 0.6, 0.9], 4.2, updates=358)
    stored(tmp_path, "bac-seed1", "bac_s10", [0.6, 0.7, 0.9], 4.2, seed=1, updates=358)
    stored(tmp_path, "bac-seed2", "bac_s10", [0.0, 0.0, 0.0], 4.2, seed=2, updates=358)
    comparison = compare(tmp_path)
    assert comparison.skipped == {"bac-seed2": "seed 2 instead of 0, 1"}
    assert comparison.references == ("full", "full-seed1")
    full, bac = comparison.rows
    assert full["paired_difference"] is None and full["mean_score"] == pytest.approx(0.75)
    assert bac["runs"] == ["bac", "bac-seed1"] and bac["noise_seeds"] == [0, 1] and bac["n_episodes"] == 6
    # the two episodes of each of the three initial states count as one observation
    by_state = mean_interval([-0.05, -0.1, -0.05])
    assert bac["paired_difference"] == pytest.approx(by_state.to_dict()) and by_state.n == 3
    assert bac["scores"]["1"] == {"100": 0.6, "101": 0.7, "102": 0.9}


def test_a_named_reference_is_the_only_one(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    stored(tmp_path, "full-seed1", "full", [0.6, 0.8], 24.7, seed=1)
    stored(tmp_path, "bac-seed1", "bac_s10", [0.6, 0.7], 4.2, seed=1, updates=358)
    comparison = compare(tmp_path, "full-seed1")
    assert [row["run"] for row in comparison.rows] == ["full-seed1", "bac-seed1"]
    assert comparison.skipped == {"full": "seed 0 instead of 1"}


def test_of_several_full_policies_one_has_to_be_named(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    stored(tmp_path, "full-raw", "full", [0.6, 0.8], 24.7, weights="raw", seed=1)
    with pytest.raises(ConfigError, match="2 evaluations of the full policy.*full: .*ema.*full-raw: .*raw"):
        compare(tmp_path)
    stored(tmp_path, "again", "full", [0.6, 0.8], 24.7, runtime="compiled")
    with pytest.raises(ConfigError, match="3 evaluations of the full policy"):
        compare(tmp_path)


def test_episodes_that_all_succeed_still_have_an_interval(tmp_path):
    for seed in (0, 1):
        stored(tmp_path, f"full{seed}", "full", [1.0] * 10, 24.7, seed=seed)
        stored(tmp_path, f"bac{seed}", "bac_s10", [1.0] * 10, 4.2, seed=seed, updates=358)
    row = compare(tmp_path).rows[1]
    assert row["interval_95"][0] < 0.9 and row["paired_difference"]["low"] < -0.05


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "raw"},
        {"seed": 1},
        {"n_action_steps": 4},
        {"n_latency_steps": 2},
        {"max_steps": 16},
        {"adapter": {"legacy_test": False}},
        {"test_seeds_from": 7},
        {"task": "u"},
        {"checkpoint_sampler": "ddim16"},
        {"checkpoint_noise": "m"},
    ],
)
def test_runs_under_other_conditions_are_left_out_with_the_reason(tmp_path, other):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358, **other)
    skipped = compare(tmp_path).skipped
    assert list(skipped) == ["bac"] and next(iter(other)) in skipped["bac"]
    assert json.loads((tmp_path / "comparison.json").read_text())["skipped"] == skipped


def test_a_precision_is_part_of_a_method_and_is_paired_with_fp32(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    stored(tmp_path, "full-int8", "full", [0.4, 0.7], 24.7, precision="int8")
    stored(tmp_path, "bac-int8", "bac_s10", [0.3, 0.6], 4.2, precision="int8", updates=358)
    comparison = compare(tmp_path)
    assert comparison.references == ("full",) and comparison.skipped == {}
    rows = {row["label"]: row for row in comparison.rows}
    assert {label: row["precision"] for label, row in rows.items()} == {
        "full": "fp32", "full, int8": "int8", "bac_s10, int8": "int8"
    }  # fmt: skip
    assert rows["full, int8"]["paired_difference"]["mean"] == pytest.approx(-0.05)
    alone = tmp_path / "alone"
    stored(alone, "full-int8", "full", [0.4, 0.7], 24.7, precision="int8")
    stored(alone, "bac-int8", "bac_s10", [0.3, 0.6], 4.2, precision="int8", updates=358)
    assert compare(alone).references == ("full-int8",) and len(compare(alone).rows) == 2


def test_the_recorded_name_of_the_code_that_makes_the_simulation_decides_nothing(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7, adapter={"_target_": "a.earlier", "name": "t", "max_steps": 300})
    stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358, adapter={"_target_": "a.now", "max_steps": 300})
    assert compare(tmp_path).skipped == {}


def test_only_shared_episodes_are_compared(tmp_path):
    stored(tmp_path, "full", "full", [0.0, 0.5, 0.7, 0.9], 24.7)
    stored(tmp_path, "bac", "bac_s10", [0.6, 0.8, 0.1, 0.1], 4.2, updates=358, first=102)
    stored(tmp_path, "far", "bac_s7", [0.6], 4.2, updates=300, first=500)
    comparison = compare(tmp_path)
    row = comparison.rows[1]
    assert (row["n_episodes"], row["n_episodes_of_run"], row["n_episodes_of_reference"]) == (2, 4, 4)
    assert row["mean_score"] == pytest.approx(0.7) and row["reference_mean_score"] == pytest.approx(0.8)
    assert row["paired_difference"]["mean"] == pytest.approx(-0.1)
    assert comparison.skipped == {"far": "no test episode in common"}


def test_another_runtime_is_compared_and_named(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358, runtime="compiled")
    assert [row["label"] for row in compare(tmp_path).rows] == ["full", "bac_s10 (compiled)"]
    assert "| bac_s10 (compiled) |" in (tmp_path / "comparison.md").read_text()


@pytest.mark.parametrize("damage", ["", "[]", "{}", "{", '{"method": "full"}', "5", '{"provenance": []}', "NaN"])
def test_a_damaged_result_is_named(tmp_path, damage):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    path = stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2)
    path.write_text(damage)
    with pytest.raises(ConfigError, match="bac/eval_results.json is damaged.*run the same evaluation again"):
        compare(tmp_path)


def test_any_missing_or_wrong_entry_is_damage_or_left_out(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    path = stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358)
    whole = json.loads(path.read_text())
    for key in ("method", "sampler", "episodes", "block_updates", "flops", "provenance"):
        for value in (None, 5, [], "x", {}):
            path.write_text(json.dumps({**whole, key: value}))
            try:
                skipped = compare(tmp_path).skipped
            except ConfigError as error:
                assert "bac/eval_results.json is damaged" in str(error)
            else:
                assert "bac" in skipped or key in ("method", "sampler")


@pytest.mark.parametrize("name", ["task", "checkpoint_hash", "runtime", "schedule_digest", "train", "checkpoint_type"])
def test_a_provenance_of_another_kind_is_damage(tmp_path, name):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7, **{name: {}})
    with pytest.raises(ConfigError, match="full/eval_results.json is damaged.*run the same evaluation again"):
        compare(tmp_path)


def test_a_number_that_no_float_can_hold_is_damage(tmp_path):
    path = stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    path.write_text(path.read_text().replace("24.7", "9" * 400))
    with pytest.raises(ConfigError, match="full/eval_results.json is damaged"):
        compare(tmp_path)


def test_results_of_an_earlier_version_are_left_out(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    path = stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358)
    content = json.loads(path.read_text())
    del content["provenance"]["checkpoint_sampler"]
    path.write_text(json.dumps(content))
    assert "did not record checkpoint_sampler" in compare(tmp_path).skipped["bac"]


def test_runs_that_denoised_other_tokens_are_not_averaged(tmp_path):
    stored(tmp_path, "full-seed0", "full", [0.5, 0.7, 0.9], 24.7)
    stored(tmp_path, "full-seed1", "full", [0.5, 0.7, 0.9], 14.1, seed=1)
    rows = compare(tmp_path).rows
    assert [(row["runs"], row["gflop_per_chunk"]) for row in rows] == [(["full-seed0"], 24.7), (["full-seed1"], 14.1)]


def test_stages_that_were_reached_are_shown_with_their_intervals(tmp_path):
    estimate = lambda mean: {"mean": mean, "interval_95": [mean / 2, mean]}
    metrics = {
        "p1": estimate(1.0),
        "p10": estimate(0.25),
        "p2": estimate(0.5),
        "p11": estimate(0.0),
        "kettle": estimate(1.0),
    }
    stored(tmp_path, "full", "full", [0.5, 0.7, 0.9], 24.7, metrics=metrics)
    stored(
        tmp_path, "bac", "bac_s10", [0.0, 0.0, 0.0], 4.2, updates=358, metrics={name: estimate(0.0) for name in metrics}
    )
    rows = compare(tmp_path).rows
    text = (tmp_path / "comparison.md").read_text()
    assert "| method | p1 | p2 | p10 |\n" in text
    assert "| full | 1.00 [0.50, 1.00] | 0.50 [0.25, 0.50] | 0.25 [0.12, 0.25] |" in text
    assert [len(table.columns) for table in comparison_tables(rows)] == [8, 4]
    assert rows[0]["metrics"]["kettle"]["mean"] == 1.0


def test_published_trainings_are_pooled_in_one_row_and_kinds_of_checkpoint_kept_apart(tmp_path):
    for train in (0, 1, 2):
        for kind, better in (("max", 0.1), ("avg", 0.0)):
            own = {"train": train, "checkpoint_type": kind, "checkpoint_hash": f"{train}{kind}"}
            full = [0.5 + better + train / 100, 0.7, 0.9]
            stored(tmp_path, f"full-train{train}-{kind}", "full", full, 24.7, **own)
            bac = [score - 0.05 for score in full]
            digest = {"schedule_digest": str(train)}
            stored(
                tmp_path, f"bac-train{train}-{kind}", "bac_s10", bac, 4 + train, updates=350 + train, **own, **digest
            )
    comparison = compare(tmp_path)
    rows = {row["label"]: row for row in comparison.rows}
    assert not comparison.skipped and len(rows) == 4
    best = rows["bac_s10 (trainings 0, 1, 2, max)"]
    assert best["trainings"] == [0, 1, 2] and best["n_episodes"] == 9 and len(best["runs"]) == 3
    assert best["paired_difference"]["mean"] == pytest.approx(-0.05)
    assert best["block_updates"] == 351 and best["gflop_per_chunk"] == pytest.approx(5)
    assert best["mean_score"] == pytest.approx(rows["bac_s10 (trainings 0, 1, 2, avg)"]["mean_score"] + 0.1 / 3)
    assert set(best["scores"]) == {"train0-max-seed0", "train1-max-seed0", "train2-max-seed0"}


def test_a_training_without_its_full_policy_is_left_out(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7, train=0, checkpoint_hash="0")
    stored(tmp_path, "bac0", "bac_s10", [0.5, 0.6], 4.2, train=0, checkpoint_hash="0")
    stored(tmp_path, "bac1", "bac_s10", [0.5, 0.6], 4.2, train=1, checkpoint_hash="1")
    comparison = compare(tmp_path)
    assert comparison.skipped == {"bac1": "seed train1-seed0 instead of train0-seed0"}
    assert [row["run"] for row in comparison.rows] == ["full", "bac0"]
