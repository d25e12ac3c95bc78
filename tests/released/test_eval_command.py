"""eval_fast_diffusion_policy.py: its modes, the files that the released project's users read, and its refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bac_workbench.evaluation.comparison import compare
from bac_workbench.released.eval_command import main
from tests.conftest import ROOT
from tests.released.conftest import EVAL, write_original

FOLDER = "assets/pusht_lowdim/optimal_steps/cosine"
OPTIMAL = ("--cache_mode", "optimal", "--optimal_steps_dir", FOLDER)
SCALARS = ("mean_score", "speedup", "flops", "frequency")


def door(checkpoint, *arguments: str, output: str = "results/pusht/bac") -> dict[str, dict]:
    """Evaluates shortly; the released files by name."""
    main(["--checkpoint", str(checkpoint), "-o", output, "--device", "cpu", *arguments, "--skip_video", *EVAL])
    names = ("eval_results", "benchmark_results", "fast_eval_log")
    return {name: json.loads(Path(output, f"{name}.json").read_text()) for name in names}


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["-o", "results/x", *arguments, "threads=1"])
    message = capsys.readouterr().err
    assert caught.value.code == 1 and "Traceback" not in message and len(message.splitlines()) < 12
    return message


@pytest.fixture
def schedules(prepared, place) -> str:
    """The folder with schedules for the checkpoint."""
    shutil.copytree(prepared, place, dirs_exist_ok=True, symlinks=True)
    return FOLDER


def test_original_is_the_full_policy(checkpoint, capsys):
    files = door(checkpoint, "--cache_mode", "original")
    results = files["eval_results"]
    assert all(isinstance(results[name], float) and results[name] >= 0 for name in SCALARS)
    assert results["cache_mode"] == "original" and results["num_caches"] is None and results["num_bu_blocks"] == 0
    assert results["block_updates"] == {"per_chunk": 60, "full": 60, "plain": 60} and results["weights"] == "ema"
    timed = files["benchmark_results"]
    assert timed["actions_per_inference"] == 8 and timed["flops"] == results["flops"]
    assert timed["fast"]["frequency"] == pytest.approx(8 / timed["fast"]["avg_time"], rel=1e-2)
    log = files["fast_eval_log"]
    assert log["test/mean_score"] == results["mean_score"]
    scores = [value for name, value in log.items() if name.startswith("test/sim_max_reward_")]
    assert len(scores) == 2 and sum(scores) / 2 == pytest.approx(results["mean_score"])
    assert not list(Path("results").rglob("*.mp4"))
    ours = json.loads(Path("results/pusht/bac", results["details"]).read_text())
    assert ours["mean_score"] == results["mean_score"] and ours["method"] == "full"
    said = capsys.readouterr().out
    assert "bac eval task=pusht_lowdim" in said and "cache=full" in said


def test_threshold_updates_at_every_nth_step(checkpoint):
    files = door(checkpoint, "--cache_mode", "threshold", "--cache_threshold", "4")
    schedule = json.loads(Path("results/pusht/bac/evaluation/schedule.json").read_text())
    assert files["eval_results"]["block_updates"]["per_chunk"] == 3 * 6  # steps 0, 4 and 8
    assert files["eval_results"]["method"] == "uniform_every4" and "uniform" in json.dumps(schedule)
    assert files["benchmark_results"]["cache_threshold"] == 4


def test_optimal_takes_the_steps_of_the_folder_and_repairs_them(checkpoint, schedules):
    files = door(checkpoint, "--cache_mode", "optimal", "--optimal_steps_dir", schedules, "--num_caches", "3")
    assert files["eval_results"]["method"] == "blockwise_acs_s3"
    assert files["eval_results"]["block_updates"]["per_chunk"] == 3 * 6
    repaired = door(
        checkpoint,
        *("--cache_mode", "optimal", "--optimal_steps_dir", "assets/pusht_lowdim/original/optimal_steps/cosine"),
        *("--num_caches", "3", "--num_bu_blocks", "6"),
        output="results/pusht/repaired",
    )["eval_results"]
    assert repaired["block_updates"]["per_chunk"] > 3 * 6 and repaired["num_bu_blocks"] == 6
    assert repaired["flops"] > files["eval_results"]["flops"]


def test_results_of_the_released_command_can_be_compared(checkpoint):
    door(checkpoint, "--cache_mode", "original", output="results/pusht/baseline")
    door(checkpoint, "--cache_mode", "threshold", "--cache_threshold", "4", output="results/pusht/threshold")
    rows = compare(Path("results/pusht")).rows
    assert [row["run"] for row in rows] == ["baseline", "threshold"]
    assert rows[1]["block_updates"] == 3 * 6 and rows[1]["n_episodes"] == 2


def test_a_cache_of_this_project_goes_through_the_same_door(checkpoint):
    results = door(checkpoint, "cache=uniform", "cache.budget=2")["eval_results"]
    assert results["method"] == "uniform_s2" and results["cache_mode"] == "cache"


def test_schedules_of_another_checkpoint_are_used_only_if_that_is_asked_for(schedules, capsys):
    other = write_original(Path("other.ckpt"), seed=1)
    flags = ["-c", str(other), "-d", "cpu", "--cache_mode", "optimal", "--optimal_steps_dir", schedules]
    message = refusal(capsys, *flags, "--num_caches", "3")
    assert "was made for another checkpoint" in message and "--other_checkpoint" in message
    results = door(other, *flags[4:], "--num_caches", "3", "--other_checkpoint")["eval_results"]
    assert results["method"] == "blockwise_acs_s3"


def test_schedules_of_another_model_are_refused(schedules, capsys):
    other = write_original(Path("other.ckpt"), n_layer=3)
    flags = ["-c", str(other), "-d", "cpu", "--cache_mode", "optimal", "--optimal_steps_dir", schedules]
    assert "is of another model: it has steps of 6 modules" in refusal(capsys, *flags, "--num_caches", "3")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--cache_mode", "optimal"], "needs --optimal_steps_dir"),
        (["--cache_mode", "optimal", "--optimal_steps_dir", "nowhere"], "there is no such folder"),
        (
            [*OPTIMAL, "--num_caches", "0"],
            "'0' is no number of updates",
        ),
        ([*OPTIMAL, "--num_caches", "4"], "--num_caches can be 3 here"),
        ([*OPTIMAL], "--num_caches 30 is not possible: use 1 to 10"),
        (
            [*OPTIMAL, "--num_caches", "3", "--num_bu_blocks", "7"],
            "--num_bu_blocks 7 is not possible: use 0 to 6",
        ),
        (
            [*OPTIMAL, "--num_caches", "3", "--metric", "l1"],
            "is of metric cosine",
        ),
        (
            ["--cache_mode", "optimal", "--optimal_steps_dir", str(Path(FOLDER).parent), "--num_caches", "3"],
            "name .../optimal_steps/<metric>",
        ),
        (["--cache_mode", "threshold", "--cache_threshold", "0"], "'0' is no interval"),
        (["--cache_mode", "threshold", "--cache_threshold", "11"], "use 1 to 10"),
        (["--cache_mode", "treshold"], "did you mean threshold?"),
        (["--cache_mode", "original", "--num_caches", "5"], "is a flag of --cache_mode optimal, not of original"),
        (["--num_bu_blocks", "5"], "is a flag of --cache_mode optimal: add that"),
        (["--cache_mode", "original", "cache=bac"], "leave one of them out"),
        (["--cache_mod", "original"], "did you mean --cache_mode?"),
        (["--cache_mode", "original", "eval.n_test=0"], "at least 1"),
    ],
)
def test_wrong_flags_and_combinations_are_errors_on_one_screen(schedules, checkpoint, capsys, arguments, says):
    assert says in refusal(capsys, "-c", str(checkpoint), "-d", "cpu", *arguments)


def test_a_folder_of_bac_eval_is_left_alone(checkpoint, capsys):
    Path("results/x").mkdir(parents=True)
    Path("results/x/settings.json").write_text("{}")
    assert "holds an evaluation of bac eval" in refusal(capsys, "-c", str(checkpoint), "-d", "cpu")


@pytest.mark.parametrize(
    "script",
    ["diffusion_policy/activation_utils/get_optimal_cache_update_steps.py", "scripts/eval_fast_diffusion_policy.py"],
)
def test_the_scripts_start_where_the_released_project_has_them(script):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
    result = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0 and "--num_caches" in result.stdout, result.stderr
