"""Settings of whole command lines: sweeps, tasks from other folders, names that are nearly right."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bac_workbench.settings.composition import config_folder
from bac_workbench.settings.launch import check_command_line, jobs_of, with_texts_quoted
from bac_workbench.settings.schema import near_keys
from diffusion_policy.common.config import ConfigError
from tests.conftest import ROOT
from tests.experiments.composed_settings import checked


def test_a_value_that_others_take_over_is_named_once():
    with pytest.raises(ConfigError) as error:
        checked("train", "task.training.batch_size=-4")
    assert str(error.value).startswith("task.training.batch_size=-4: use") and "\n" not in str(error.value)
    with pytest.raises(ConfigError) as error:
        checked("eval", "task.n_obs_steps=abc")
    assert str(error.value).startswith("task.n_obs_steps=abc: use") and "\n" not in str(error.value)


def test_near_names_come_from_the_same_group_first():
    known = ["seed", "eval.n_test", "eval.n_envs", "rollout.n_envs", "training.n_env"]
    assert near_keys("rollout.n_env", known) == ["rollout.n_envs"]
    assert near_keys("n_envs", known) == ["eval.n_envs", "rollout.n_envs"] and near_keys("zzz", known) == []


def test_own_tasks_from_another_folder_are_checked_and_may_have_settings_of_their_own(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "my_arm.yaml").write_text(
        "defaults: [pusht_lowdim, _self_]\nname: my_arm\nenvironment: null\nmine: {speed: 3}\ncheckpoint: x\n"
    )
    line = ["--config-dir", str(tmp_path), "task=my_arm"]
    check_command_line([*line, "task.mine.speed=4", "++task.mine.speed=5"], "eval")
    with pytest.raises(ConfigError, match="task.mine.speed"):
        check_command_line([*line, "task.mine.sped=4"], "eval")
    with pytest.raises(ConfigError, match="task.horizon=0"):
        check_command_line([*line, "task.horizon=0"], "train")


def test_settings_known_only_to_a_running_job_are_left_to_it():
    check_command_line(["task=pusht_lowdim", "output_dir=results/${hydra:job.num}"], "eval")


def test_texts_of_a_sweep_stay_as_they_were_typed():
    arguments = ["-m", "seed=0,1", "output_dir=007,1e1,1_000,a,true", "cache=full,bac", "wandb.project=x"]
    kept = with_texts_quoted(arguments, "eval")
    assert kept == ["-m", "seed=0,1", "output_dir=007,'1e1','1_000',a,'true'", "cache=full,bac", "wandb.project=x"]
    with config_folder():
        jobs = jobs_of(kept[1:])
    assert len(jobs) == 20
    assert {checked("eval", *job).output_dir for job in jobs} == {"007", "1e1", "1_000", "a", "true"}


def test_a_sweep_passes_if_all_its_jobs_do():
    check_command_line(["-m", "task=pusht_lowdim", "cache=full,uniform,bac", "seed=range(0,2)"], "eval")


def test_the_schema_is_quick_to_import():
    code = (
        "import sys, time; import hydra, torch; import bac_workbench.setup.experiment, bac_workbench.benchmark.run; "
        "t = time.process_time(); "
        "import bac_workbench.settings.evaluation, bac_workbench.settings.launch; print(time.process_time() - t)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert float(result.stdout) < 1.5, result.stderr
