"""What a comparison writes: tables to paste, plain numbers, and every episode that counts."""

from __future__ import annotations

import csv
import json

import pytest

from bac_workbench.evaluation.comparison import compare
from bac_workbench.evaluation.comparison_tables import latex, latex_text, markdown
from diffusion_policy.common.config import ConfigError
from tests.experiments.stored_runs import MACHINE, stored, timed


def records(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path):
    """full and bac_s10 with two noise seeds; the full policy has an episode more."""
    for seed in (0, 1):
        full, bac = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
        stored(tmp_path, f"full{seed}", "full", full, 24.7, seed=seed, successes=full, steps=[40] * 7)
        stored(tmp_path, f"bac{seed}", "bac_s10", bac, 4.2, seed=seed, updates=358, successes=bac, steps=[50] * 6)
    return tmp_path


def test_the_episodes_on_record_give_the_numbers_of_the_table(runs):
    rows = {row["label"]: row for row in compare(runs).rows}
    episodes = records(runs / "episodes.csv")
    for line in records(runs / "comparison.csv"):
        own = [row for row in episodes if row["row"] == line["method"]]
        assert len(own) == int(line["episodes"]) == rows[line["method"]]["n_episodes"]
        mean = sum(float(row["score"]) for row in own) / len(own)
        assert mean == pytest.approx(float(line["mean_score"])) == pytest.approx(rows[line["method"]]["mean_score"])
    bac = [row for row in episodes if row["run"] == "bac1"]
    assert [row["environment_seed"] for row in bac] == [str(100 + i) for i in range(6)]
    assert {row["noise_seed"] for row in bac} == {"1"} and {row["control_steps"] for row in bac} == {"50"}
    assert {(row["task"], row["sampler"], row["method"]) for row in bac} == {("t", "ddpm100", "bac_s10")}


def test_the_csv_has_a_line_per_method_with_plain_numbers(runs):
    row = compare(runs, margin=0.4).rows[1]
    full, bac = records(runs / "comparison.csv")
    assert full["difference"] == full["verdict"] == full["mcnemar_p"] == "" and bac["runs"] == "bac0;bac1"
    assert float(bac["difference"]) == row["paired_difference"]["mean"] and bac["noise_seeds"] == "0;1"
    assert [float(bac["bootstrap_low"]), float(bac["bootstrap_high"])] == row["bootstrap_interval_95"]
    assert (bac["gained"], bac["lost"]) == ("0", "2") and float(bac["mcnemar_p"]) == row["mcnemar"]["p_value"]
    assert float(bac["success_rate"]) == row["success_rate"]["mean"] == 0.5 and float(bac["margin"]) == 0.4
    assert bac["ms_p50"] == "" and float(bac["full_control_steps"]) == 40


def test_another_margin_is_another_question(runs):
    verdicts = [compare(runs, margin=margin).rows[1]["noninferiority"] for margin in (0.05, 0.9)]
    assert [verdict["result"] for verdict in verdicts] == ["not shown", "shown"]
    assert json.loads((runs / "comparison.json").read_text())["margin"] == 0.9
    assert "| not worse by 0.9 |" in (runs / "comparison.md").read_text()


def test_times_are_shown_with_their_machine(tmp_path):
    timed(stored(tmp_path, "full", "full", [0.5, 0.7], 24.7), 40, 1.0)
    stored(tmp_path, "uniform", "uniform_s10", [0.5, 0.7], 5.0, updates=240)
    for seed, ms in ((0, 8.0), (1, 10.0)):
        timed(stored(tmp_path, f"bac{seed}", "bac_s10", [0.5, 0.7], 4.2, updates=358, seed=seed), ms, 40 / ms)
    stored(tmp_path, "full1", "full", [0.5, 0.7], 24.7, seed=1)
    rows = {row["method"]: row for row in compare(tmp_path).rows}
    assert rows["bac_s10"]["timing"]["ms_p50"] == 9 and rows["bac_s10"]["timing"]["runs"] == ["bac0", "bac1"]
    assert rows["full"]["timing"]["runs"] == ["full"] and rows["uniform_s10"]["timing"] is None
    text = (tmp_path / "comparison.md").read_text()
    assert "| ms/chunk | speed-up | same runtime |" in text and "| 9.0 | 4.50x | 2.25x |" in text
    assert "| - | - | - |" in text and f"at batch 1, wall-clock, on {MACHINE}\n" in text
    assert records(tmp_path / "comparison.csv")[-1]["machine"] == MACHINE


def test_times_of_two_machines_are_never_mixed(tmp_path):
    timed(stored(tmp_path, "full", "full", [0.5, 0.7], 24.7), 40, 1.0)
    stored(tmp_path, "full1", "full", [0.5, 0.7], 24.7, seed=1)
    timed(stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358), 2, 20.0, "another")
    timed(stored(tmp_path, "bac1", "bac_s10", [0.5, 0.7], 4.2, updates=358, seed=1), 8, 5.0, "a third")
    row = compare(tmp_path).rows[1]
    assert row["timing"]["ms_p50"] == 2 and row["timing"]["other_machines"] == {"bac1": "a third"}
    text = (tmp_path / "comparison.md").read_text()
    assert "| 40.0 (a) |" in text and "| 2.0 (b) | 20.00x (b) |" in text and f"a: {MACHINE}; b: another" in text
    assert "not in the times of bac_s10: bac1, timed on a third" in text


def test_times_of_another_run_are_no_times_of_this_one(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    timed(stored(tmp_path, "bac", "bac_s10", [0.5, 0.7], 4.2, updates=358), 2, 20.0, runtime="compiled")
    assert [row["timing"] for row in compare(tmp_path).rows] == [None, None]
    assert "ms/chunk" not in (tmp_path / "comparison.md").read_text()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"provenance": {}}', "speedup"])
def test_damaged_times_are_named(tmp_path, damage):
    path = timed(stored(tmp_path, "full", "full", [0.5, 0.7], 24.7), 40, 1.0)
    if damage == "speedup":
        damage = path.read_text().replace('"speedup": 1.0', '"speedup": -1')
    if damage == '{"provenance": {}}':
        damage = json.dumps({"provenance": json.loads(path.read_text())["provenance"]})
    path.write_text(damage)
    with pytest.raises(ConfigError, match="benchmark_results.json is damaged.*benchmark.n_chunks"):
        compare(tmp_path)


def test_latex_is_a_booktabs_table_with_every_special_character_escaped(runs):
    compare(runs)
    text = (runs / "comparison.tex").read_text()
    assert text.startswith("% \\usepackage{booktabs}\n")
    for part in (r"\begin{tabular}{lrrrrrrr}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(part) == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 3 and all(line.count(" & ") == 7 for line in body)
    assert r"bac\_s10 & 0.500 [" in text and r"$-$0.167 [$-$" in text and r"[95 \%]" in text


def test_text_for_latex_and_markdown():
    assert latex_text("a_b 5 % & #1 {x} ~^\\ <|> $") == (
        r"a\_b 5 \% \& \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}\textbar{}\textgreater{} \$"
    )
    assert latex_text("-0.5 [-1, +2] - full-seed1 ddim16-even") == "$-$0.5 [$-$1, +2] - full-seed1 ddim16-even"
    assert markdown((["a|b"], [["c"]])) == "| a\\|b |\n| --- |\n| c |\n"
    assert latex((["a", "b"], [])).splitlines()[2] == r"a & b \\"


def test_rows_of_one_name_are_told_apart(tmp_path):
    stored(tmp_path, "full", "full", [0.5, 0.7], 24.7)
    for name, digest in (("first", "x"), ("second", "y")):
        stored(tmp_path, name, "bac_s10", [0.5, 0.7], 4.2, updates=358, schedule_digest=digest)
    assert [row["label"] for row in compare(tmp_path).rows] == ["full", "bac_s10 [first]", "bac_s10 [second]"]
