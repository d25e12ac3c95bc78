"""The folder of an evaluation: one process at a time, one evaluation, and damage that is named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import drop_repeated_rows, open_output_dir
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import LockedError
from tests.conftest import ROOT

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")
SMALL = ["cache=uniform", "cache.budget=1", "sampler.steps=1", "eval.n_test=2", "task.environment.max_steps=8"]


def run(settings):
    experiment, said = load_experiment(settings, n_test=settings.eval.n_test, n_train=0), []
    return evaluate(experiment, open_output_dir(experiment), said.append), said


@pytest.fixture
def finished(make_settings, tmp_path):
    evaluation, _ = run(make_settings(*SMALL))
    return evaluation, tmp_path / "out"


def test_a_second_process_is_refused_at_once_and_told_who_writes(make_settings, tmp_path):
    cfg = make_settings(*SMALL)
    experiment = load_experiment(cfg, n_test=2, n_train=0)
    folder = open_output_dir(experiment)
    code = (
        "import sys; from pathlib import Path; from diffusion_policy.common.lock import locked\n"
        "with locked(Path(sys.argv[1]), 'evaluation elsewhere'):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"evaluation elsewhere, process {other.pid}.*since"):
            evaluate(experiment, folder, lambda text: None)
        assert not (folder / "episodes.jsonl").exists()
        other.stdin.close()
    assert evaluate(experiment, folder, lambda text: None).results["n_episodes"] == 2


def test_rows_that_say_the_same_twice_are_dropped_and_others_refused(make_settings, finished):
    evaluation, folder = finished
    rows = folder / "episodes.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole + whole)
    again, said = run(make_settings(*SMALL))
    assert any("held 2 episodes twice" in line for line in said) and rows.read_bytes() == whole
    assert again.results["mean_score"] == evaluation.results["mean_score"]
    first = json.loads(whole.splitlines()[0])
    rows.write_bytes(whole + json.dumps({**first, "score": 0.123}).encode() + b"\n")
    with pytest.raises(ConfigError, match="episodes.jsonl holds episode 0 twice"):
        run(make_settings(*SMALL))


def test_dropping_keeps_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert drop_repeated_rows(path) == 0
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 1}\n{"a"')
    assert drop_repeated_rows(path) == 1 and path.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a"'
    assert drop_repeated_rows(path) == 0


@pytest.mark.parametrize(
    "damage",
    [b"[]", b"", b"{", b"{}", b'{"n_envs": "x"}', b'{"n_envs": 2, "episodes": 2, "earlier_n_envs": 3}', b"\xff"],
)
def test_damaged_settings_are_named_with_the_repair(make_settings, finished, damage):
    (finished[1] / "settings.json").write_bytes(damage)
    with pytest.raises(ConfigError, match="settings.json is damaged.*overwrite=true"):
        run(make_settings(*SMALL))
    assert run(make_settings(*SMALL, "overwrite=true"))[0].results["n_episodes"] == 2


@pytest.mark.parametrize("damage", [b"[]\n", b"\n", b"{}\n", b"\xff\n", b'{"index": 0}\n'])
def test_damaged_episodes_are_named_with_the_repair(make_settings, finished, damage):
    path = finished[1] / "episodes.jsonl"
    path.write_bytes(damage + path.read_bytes())
    with pytest.raises(
        ConfigError, match="episodes.jsonl, line 1 is not an episode result.*Remove the file.*overwrite=true"
    ):
        run(make_settings(*SMALL))


def test_rows_of_another_plan_or_a_folder_in_their_place_are_named(make_settings, finished):
    path = finished[1] / "episodes.jsonl"
    row = json.loads(path.read_bytes().splitlines()[0])
    path.write_text(json.dumps({**row, "seed": 7}) + "\n")
    with pytest.raises(ConfigError, match="episodes.jsonl is damaged: .*seed 7.* is not part of this evaluation"):
        run(make_settings(*SMALL))
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="episodes.jsonl"):
        run(make_settings(*SMALL))


@pytest.mark.parametrize(
    "other",
    [
        ["task.environment.legacy_test=false"],
        ["task.n_action_steps=4"],
        ["sampler.variance_type=fixed_large"],
        ["sampler.type=ddim"],
        ["task.environment.max_steps=9"],
        ["seed=1"],
    ],
)
def test_every_setting_that_decides_numbers_tells_evaluations_apart(make_settings, finished, other):
    before = (finished[1] / "eval_results.json").read_bytes()
    with pytest.raises(ConfigError, match="holds another evaluation"):
        run(make_settings(*SMALL, *other))
    (finished[1] / "episodes.jsonl").unlink()  # the results are another evaluation's still
    with pytest.raises(ConfigError, match="holds another evaluation"):
        run(make_settings(*SMALL, *other))
    assert (finished[1] / "eval_results.json").read_bytes() == before


def rows_of(folder):
    return sorted((folder / "episodes.jsonl").read_text().splitlines(), key=lambda line: json.loads(line)["index"])


def test_more_episodes_are_added_to_those_that_are_there(make_settings, finished, tmp_path):
    _, folder = finished
    before = (folder / "episodes.jsonl").read_text()
    longer, said = run(make_settings(*SMALL, "eval.n_test=5"))
    assert any("held an evaluation of 2 episodes: the 2 finished ones are kept, 3 are added" in line for line in said)
    assert (folder / "episodes.jsonl").read_text().startswith(before) and longer.results["n_episodes"] == 5
    at_once, _ = run(make_settings(*SMALL, "eval.n_test=5", f"output_dir={tmp_path}/at_once"))
    assert rows_of(folder) == rows_of(tmp_path / "at_once")
    numbers = ("mean_score", "mean_score_interval_95", "success_rate_interval_95", "episodes", "metrics")
    assert all(longer.results.get(key) == at_once.results.get(key) for key in numbers)
    stored, fresh = (json.loads((path / "settings.json").read_text()) for path in (folder, tmp_path / "at_once"))
    assert stored == fresh


def test_an_extension_that_was_killed_goes_on(make_settings, finished):
    _, folder = finished
    run(make_settings(*SMALL, "eval.n_test=5"))
    whole = rows_of(folder)
    (folder / "episodes.jsonl").write_text("\n".join(whole[:3]) + "\n" + whole[4][:20])
    again, said = run(make_settings(*SMALL, "eval.n_test=5"))
    assert rows_of(folder) == whole and again.results["n_episodes"] == 5
    assert any("3 of 5 episodes are already" in line for line in said)


def test_a_killed_extension_can_be_cut_down_to_what_is_finished(make_settings, finished):
    evaluation, folder = finished
    (folder / "settings.json").write_text(
        (folder / "settings.json").read_text().replace('"episodes": 2', '"episodes": 50')
    )
    with pytest.raises(ConfigError, match="evaluation of 50 episodes, 2 of them finished, and 1 .*eval.n_test=2 or"):
        run(make_settings(*SMALL, "eval.n_test=1"))
    assert run(make_settings(*SMALL))[0].results["mean_score"] == evaluation.results["mean_score"]


def test_fewer_episodes_than_are_there_are_refused_and_nothing_is_lost(make_settings, finished):
    _, folder = finished
    before = {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    with pytest.raises(ConfigError, match="2 of them finished, and 1 are asked for.*eval.n_test=2 or more"):
        run(make_settings(*SMALL, "eval.n_test=1"))
    (folder / "episodes.jsonl").unlink()  # the results cover them still
    with pytest.raises(ConfigError, match="eval.n_test=2 or more"):
        run(make_settings(*SMALL, "eval.n_test=1"))
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")}.items() <= before.items()


def test_train_episodes_cannot_be_added_later(make_settings, finished):
    cfg = make_settings(*SMALL, "eval.n_test=4", "eval.n_train=1")
    experiment = load_experiment(cfg, n_test=4, n_train=1)
    with pytest.raises(ConfigError, match="another number of train episodes.*Only eval.n_test can grow"):
        evaluate(experiment, open_output_dir(experiment), lambda text: None)


def test_a_folder_names_every_commit_that_worked_on_it(make_settings, finished):
    _, folder = finished
    path = folder / "settings.json"
    now = json.loads(path.read_text())["commit"]
    path.write_text(path.read_text().replace(json.dumps(now), '"earlier"'))
    results = run(make_settings(*SMALL, "eval.n_test=3"))[0].results
    assert results["provenance"]["commit"] == now and results["provenance"]["earlier_commits"] == ["earlier"]
    assert json.loads(path.read_text())["earlier_commits"] == ["earlier"]


def test_starting_over_leaves_nothing_of_the_other_evaluation(make_settings, finished):
    _, folder = finished
    assert (folder / "schedule.json").exists()
    run(make_settings("cache=full", *SMALL[2:], "overwrite=true"))
    assert not (folder / "schedule.json").exists() and not (folder / "schedule.png").exists()
    assert json.loads((folder / "eval_results.json").read_text())["method"] == "full"


def test_a_folder_that_looks_like_a_number(make_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(make_settings(*SMALL, "output_dir=20240601"))[0].output_dir.name == "20240601"
