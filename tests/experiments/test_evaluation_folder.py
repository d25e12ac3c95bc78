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
    "damage", [b"[]", b"", b"{", b"{}", b'{"n_envs": "x"}', b'{"n_envs": 2, "earlier_n_envs": 3}', b"\xff"]
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


def test_starting_over_leaves_nothing_of_the_other_evaluation(make_settings, finished):
    _, folder = finished
    assert (folder / "schedule.json").exists()
    run(make_settings("cache=full", *SMALL[2:], "overwrite=true"))
    assert not (folder / "schedule.json").exists() and not (folder / "schedule.png").exists()
    assert json.loads((folder / "eval_results.json").read_text())["method"] == "full"


def test_a_folder_that_looks_like_a_number(make_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(make_settings(*SMALL, "output_dir=20240601"))[0].output_dir.name == "20240601"
