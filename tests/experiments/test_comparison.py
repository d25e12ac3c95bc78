"""Stored evaluations are compared in pairs."""
from __future__ import annotations

import json

import pytest

from diffusion_policy.common.config import ConfigError
from experiments.comparison import compare, comparison_table


def stored(folder, name, method, scores, gflop, hash_="a", sampler="ddpm100", **more):
    (folder / name).mkdir()
    mean = sum(scores) / len(scores)
    (folder / name / "eval_results.json").write_text(json.dumps({
        "method": method, "sampler": sampler, "mean_score": mean, "mean_score_interval_95": [mean - 0.1, mean + 0.1], "n_episodes": len(scores),
        "episodes": [{"seed": 100 + i, "split": "test", "score": s} for i, s in enumerate(scores)],
        "block_updates": {"per_chunk": 10}, "flops": {"gflop_per_chunk": gflop},
        "provenance": {"checkpoint_hash": hash_, "seed": 0, "weights": "ema", "test_seeds_from": 100000, "commit": "c", "hardware": "h"},
        **more,
    }))


def test_pairs_by_seed_and_leaves_other_checkpoints_out(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7, 0.9], 24.7)
    stored(tmp_path, "bac", "bac_s10", [0.6, 0.8, 1.0], 4.2)
    stored(tmp_path, "other", "bac_s10", [0.0, 0.0, 0.0], 4.2, hash_="b")
    rows = compare(tmp_path)
    assert [row["method"] for row in rows] == ["full", "bac_s10"]
    assert rows[1]["paired_difference"]["mean"] == pytest.approx(0.1)
    assert rows[0]["paired_difference"] is None
    assert "| bac_s10 |" in (tmp_path / "comparison.md").read_text()
    assert comparison_table(rows).row_count == 2


def test_needs_the_full_policy(tmp_path):
    with pytest.raises(ConfigError, match="cache=full first"):
        compare(tmp_path)


def test_stages_that_were_reached_are_shown_with_their_intervals(tmp_path):
    estimate = lambda mean: {"mean": mean, "interval_95": [mean / 2, mean]}  # noqa: E731
    metrics = {"p1": estimate(1.0), "p10": estimate(0.25), "p2": estimate(0.5), "p11": estimate(0.0), "kettle": estimate(1.0)}
    stored(tmp_path, "full", "full", [0.5, 0.7, 0.9], 24.7, metrics=metrics)
    stored(tmp_path, "bac", "bac_s10", [0.0, 0.0, 0.0], 4.2, metrics={name: estimate(0.0) for name in metrics})
    rows = compare(tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert text.startswith("| method | p1 | p2 | p10 | mean score")
    assert "| full | 1.00 [0.50, 1.00] | 0.50 [0.25, 0.50] | 0.25 [0.12, 0.25] |" in text
    assert len(comparison_table(rows).columns) == 9 and rows[0]["metrics"]["kettle"]["mean"] == 1.0
