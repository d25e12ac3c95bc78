"""The commands of the released project's README, letter by letter: all are accepted, and the first ones run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bac_workbench.released import benchmark_command, cache_flags, eval_command, steps_batch, steps_command
from bac_workbench.released.options import settings_from
from bac_workbench.released.selection import chosen_tasks
from tests.conftest import ROOT
from tests.experiments.test_original_image_policies import original
from tests.original_checkpoints import saved
from tests.released.conftest import EVAL, PROFILE

CAN = "checkpoint/can_ph/diffusion_policy_transformer/train_0/checkpoints/epoch=0650-test_mean_score=1.000.ckpt"
SCHEDULES = f"""python diffusion_policy/activation_utils/get_optimal_cache_update_steps.py
  -c {CAN} -o assets/can_ph -d cuda:0 --num_caches 5,8,10,20 --force_recompute"""
EVALUATION = f"python scripts/eval_fast_diffusion_policy.py --checkpoint {CAN} -o results/can_ph/"
BAC = f"""{EVALUATION}bac --device cuda:0 --cache_mode optimal --optimal_steps_dir assets/can_ph/optimal_steps/cosine
  --metric cosine --num_caches 5 --num_bu_blocks 3 --skip_video"""
BASELINE = f"{EVALUATION}baseline --device cuda:0 --cache_mode original --skip_video"
THRESHOLD = f"{EVALUATION}threshold --device cuda:0 --cache_mode threshold --cache_threshold 5 --skip_video"
STEPS = "./shs/get_steps/get_optimal_steps.sh --device cuda:0 --num_caches 5"
BENCHMARKS = "./shs/benchmark/run_all_benchmarks.sh --device cuda:0 --skip_video"


def words(command: str, device: str = "cpu") -> list[str]:
    """The command as a shell sees it, on this machine's device."""
    return shlex.split(command.replace("\n", " ").replace("cuda:0", device))


def test_schedules_are_asked_for_as_the_readme_does():
    given = steps_command.flags().read(words(SCHEDULES)[2:])
    settings = settings_from("profile_blocks", steps_command.overrides_of(given))
    assert (settings.task.name, settings.checkpoint, settings.overwrite) == ("can_ph", CAN, True)
    assert settings.schedules == ["bac_s5", "bac_s8", "bac_s10", "bac_s20"] and settings.assets_dir == "assets"


@pytest.mark.parametrize(
    "command, cache",
    [
        (BAC, {"method": "bac", "budget": 5, "top_k": 3, "metric": "cosine"}),
        (BASELINE, {"method": "full"}),
        (THRESHOLD, {"method": "uniform", "interval": 5}),
    ],
)
def test_evaluations_are_asked_for_as_the_readme_does(command, cache):
    given = eval_command.flags().read(words(command)[2:])
    settings = settings_from("eval", eval_command.overrides_of(given, cache_flags.check_flags(given)))
    assert (settings.task.name, settings.checkpoint, settings.eval.n_videos) == ("can_ph", CAN, 0)
    assert cache.items() <= settings.cache.to_dict().items()


@pytest.mark.parametrize(
    "flags, tasks", [("", 12), (" --ph_only", 6), (" --mh_only", 4), (" --lowdim_only", 2), (" --task can_ph", 1)]
)
def test_batches_are_asked_for_as_the_readme_does(flags, tasks):
    given = steps_batch.flags().read(words(STEPS + flags)[1:])
    assert given.num_caches == [5] and len(chosen_tasks(given)) == tasks
    given = benchmark_command.flags().read(words(BENCHMARKS + flags)[1:])
    assert given.skip_video and len(chosen_tasks(given)) == tasks
    assert [method.name for method in benchmark_command.methods_of(given)] == ["Full", "Uniform", "BAC"]
    for script in (STEPS, BENCHMARKS):
        assert os.access(ROOT / words(script)[0], os.X_OK)


@pytest.mark.slow
def test_the_readme_from_a_checkpoint_to_results(tmp_path):
    """As a user types it, in a process each, from the root of a folder that holds the scripts and the checkpoint."""
    pytest.importorskip("robosuite")
    (tmp_path / CAN).parent.mkdir(parents=True)
    saved(tmp_path / CAN, original("can", steps=20))
    for name in ("scripts", "diffusion_policy"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}

    def run(command: str, *short: str) -> str:
        arguments = [sys.executable, *words(command)[1:], *short]
        result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    steps = [*(text for text in PROFILE if "max_steps" not in text), "+task.environment.max_steps=16"]
    short = [*(text for text in EVAL if "max_steps" not in text), "+task.environment.max_steps=16", "eval.n_envs=1"]
    short = [text for text in short if text != "eval.n_envs=2"]
    assert "bac profile task=can_ph" in run(SCHEDULES, *steps)
    folder = tmp_path / "assets" / "can_ph" / "optimal_steps" / "cosine" / "decoder.layers.0.dropout1"
    assert len(list(folder.glob("*.json"))) == 4
    assert "bac eval task=can_ph" in run(BAC, *short)
    results = json.loads((tmp_path / "results" / "can_ph" / "bac" / "eval_results.json").read_text())
    assert results["method"] == "bac_s5_k3" and results["speedup"] > 1
    run(THRESHOLD, *short)
    threshold = json.loads((tmp_path / "results" / "can_ph" / "threshold" / "eval_results.json").read_text())
    assert threshold["block_updates"]["per_chunk"] == 4 * 6
    assert Path(tmp_path / "results" / "can_ph" / "threshold" / "benchmark_results.json").exists()
