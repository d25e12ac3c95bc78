"""bac compare of a folder above several tasks, and its command line."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from bac_workbench.commands import compare as command
from bac_workbench.evaluation.comparison import Overview, compare_all
from diffusion_policy.common.config import ConfigError
from tests.experiments.stored_runs import draws, stored

METHODS = {"full": ("full", 24.7, 2400), "bac": ("bac_s10", 4.2, 358), "uniform": ("uniform_s10", 2.8, 240)}


def task(folder, name, scores):
    """One run for each method of `scores`."""
    for run, values in scores.items():
        method, gflop, updates = METHODS[run]
        stored(folder / name, run, method, values, gflop, updates=updates, task=name)


@pytest.fixture
def results(tmp_path):
    """Two tasks; BAC is planted as equal in one and as worse in the other, which lacks Uniform."""
    good = [0.9, 0.95] * 60
    task(tmp_path, "kitchen", {"full": good, "bac": [0.95, 0.9] * 60, "uniform": [0.8, 0.85] * 60})
    task(tmp_path, "pusht", {"full": good, "bac": [0.5, 0.6] * 60})
    return tmp_path


def test_every_task_has_a_table_and_all_have_an_overview(results):
    found = compare_all(results)
    assert isinstance(found, Overview) and list(found.tasks) == ["kitchen", "pusht"] and not found.skipped
    content = json.loads((results / "comparison.json").read_text())
    overview = {method["label"]: method["tasks"] for method in content["overview"]}
    assert overview["bac_s10"]["kitchen"]["verdict"] == "shown" and overview["bac_s10"]["pusht"]["verdict"] == "refuted"
    assert list(overview["uniform_s10"]) == ["kitchen"] and "full" not in overview
    assert content["tasks"]["pusht"]["rows"][1]["paired_difference"]["mean"] == pytest.approx(-0.375)
    text = (results / "comparison.md").read_text()
    assert "| method | kitchen | pusht |" in text and "## kitchen\n" in text and "## pusht\n" in text
    assert "| full: mean score | 0.925 | 0.925 |" in text and "-0.375" in text.split("## kitchen")[0]
    assert (results / "comparison.tex").read_text().count(r"\toprule") == 3
    with open(results / "comparison.csv", newline="") as file:
        assert [row["folder"] for row in csv.DictReader(file)] == ["kitchen"] * 3 + ["pusht"] * 2
    with open(results / "episodes.csv", newline="") as file:
        assert {row["task"] for row in csv.DictReader(file)} == {"kitchen", "pusht"}
    assert not list(results.glob("*/comparison.*"))


def test_a_task_that_cannot_be_compared_is_named_and_the_others_are_shown(results):
    task(results, "lift", {"bac": [0.5, 0.7]})
    (results / "can" / "full").mkdir(parents=True)
    (results / "can" / "full" / "eval_results.json").write_text("{")
    found = compare_all(results)
    assert list(found.tasks) == ["kitchen", "pusht"] and list(found.skipped) == ["can", "lift"]
    assert "is damaged" in found.skipped["can"] and "cache=full first" in found.skipped["lift"]
    assert "left out: lift: " in (results / "comparison.md").read_text()


def test_where_nothing_can_be_compared_every_reason_is_told(tmp_path):
    for name in ("lift", "can"):
        task(tmp_path, name, {"bac": [0.5, 0.7]})
    with pytest.raises(ConfigError, match="(?s)nothing that can be compared.*can: .*cache=full first.*lift: "):
        compare_all(tmp_path)
    with pytest.raises(ConfigError, match="holds no evaluations"):
        compare_all(tmp_path / "can" / "bac")


def test_a_task_with_more_folders_inside_names_them(results):
    task(results / "pusht", "latency", {"full": [0.5, 0.7], "bac": [0.5, 0.7]})
    found = compare_all(results / "pusht")
    assert [row["run"] for row in found.rows] == ["full", "bac"]
    assert found.skipped == {"latency/": f"evaluations of their own: bac compare {results / 'pusht' / 'latency'}"}
    assert list(compare_all(results).tasks) == ["kitchen", "pusht", "pusht/latency"]


def test_a_run_beside_the_tasks_does_not_hide_them(results):
    stored(results, "select", "bac_s10", [0.5, 0.7], 4.2, updates=358)
    found = compare_all(results)
    assert list(found.tasks) == ["kitchen", "pusht"] and "cache=full first" in found.skipped["."]


def test_a_named_reference_is_looked_for_in_every_task(results):
    (results / "pusht" / "full").rename(results / "pusht" / "full-other")
    found = compare_all(results, "full")
    assert list(found.tasks) == ["kitchen"] and "holds no run full" in found.skipped["pusht"]


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    try:
        command.main()
    except SystemExit as error:
        assert error.code == 1
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), " ".join(captured.err.split())


def test_the_command_takes_a_margin(results, monkeypatch, capsys):
    out, _ = run(monkeypatch, capsys, results / "pusht", "full", "margin=0.5")
    assert "shown" in out and "refuted" not in out and "comparison.tex" in out
    for wrong in ("margin=0", "margin=2", "margin=x"):
        _, err = run(monkeypatch, capsys, results / "pusht", wrong)
        assert f"{wrong}: " in err and "above 0 and below 1" in err
    _, err = run(monkeypatch, capsys, results / "pusht", "magrin=0.1")
    assert "did you mean margin?" in err


def test_the_command_shows_every_task_and_what_it_left_out(results, monkeypatch, capsys):
    task(results, "lift", {"bac": [0.5, 0.7]})
    out, _ = run(monkeypatch, capsys, results)
    assert "pusht: same episodes" in out and "full: mean score" in out and "left out: lift:" in out


# ---- planted differences, through the whole comparison ----
def test_a_planted_worse_method_is_called_worse_and_an_equal_one_is_not(tmp_path):
    n = 300
    full = draws(0, n, 0.8)
    equal = list(full)
    for score in (0.0, 1.0):  # a dozen successes fail, and a dozen failures succeed
        for index in [index for index, own in enumerate(full) if own == score][:12]:
            equal[index] = 1 - score
    worse = [score * (1 - lost) for score, lost in zip(full, draws(2, n, 0.3))]
    for name, scores, updates in (("full", full, 2400), ("equal", equal, 652), ("worse", worse, 358)):
        method = "full" if name == "full" else f"bac_{name}"
        stored(tmp_path, name, method, scores, updates / 100, updates=updates, successes=scores)
    rows = {row["run"]: row for row in compare_all(tmp_path, margin=0.1).rows}
    assert rows["worse"]["noninferiority"]["result"] == "refuted" and rows["worse"]["mcnemar"]["p_value"] < 1e-6
    assert rows["worse"]["paired_difference"]["high"] < 0 and rows["worse"]["bootstrap_interval_95"][1] < 0
    assert rows["equal"]["noninferiority"]["result"] == "shown" and rows["equal"]["mcnemar"]["p_value"] == 1
    low, high = rows["equal"]["bootstrap_interval_95"]
    assert low < 0 < high


def test_two_noise_seeds_narrow_the_interval(tmp_path):
    for seed in (0, 1):
        for folder in ("two", *(["one"] if seed == 0 else [])):
            full, bac = draws(10 + seed, 200, 0.8), draws(20 + seed, 200, 0.75)
            stored(tmp_path / folder, f"full{seed}", "full", full, 24.7, seed=seed)
            stored(tmp_path / folder, f"bac{seed}", "bac_s10", bac, 4.2, seed=seed, updates=358)
    one, two = (compare_all(tmp_path / folder).rows[1] for folder in ("one", "two"))
    for width in (
        lambda row: row["paired_difference"]["high"] - row["paired_difference"]["low"],
        lambda row: row["bootstrap_interval_95"][1] - row["bootstrap_interval_95"][0],
    ):
        assert 0.6 < width(two) / width(one) < 0.85  # independent noise: the square root of a half
