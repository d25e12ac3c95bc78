"""Block Pushing and Kitchen from end to end: a tiny policy in the real simulator, profiled, cached, scored by stage."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from bac_workbench.evaluation.comparison import compare
from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import open_output_dir
from bac_workbench.evaluation.report import metrics_table, throughput_line
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.env.kitchen.definition import TASKS
from tests.conftest import ROOT
from tests.tiny_policy import save_tiny_policy

CONFIG = str(ROOT / "config")
STAGES = {"block_pushing": ["p1", "p2"], "kitchen_scripted_demos": [*(f"p{n}" for n in range(1, 8)), *TASKS]}
every_task = pytest.mark.parametrize("task", list(STAGES))


def config(*overrides, script="eval"):
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        return compose(script, list(overrides))


@pytest.fixture
def make_cfg(tmp_path):
    """make_cfg(task, ...) -> eval config on a random policy of one small layer, everything written under tmp_path."""

    def make(task, *overrides):
        for package in {"block_pushing": ("pybullet",), "kitchen_scripted_demos": ("mujoco", "gymnasium_robotics")}[
            task
        ]:
            pytest.importorskip(package)
        save_tiny_policy(tmp_path / "policy", task, (-1.0, 1.0), (-0.03, 0.03), n_layer=1, steps=6)
        return config(
            f"task={task}",
            f"checkpoint={tmp_path}/policy",
            f"assets_dir={tmp_path}/assets",
            f"output_dir={tmp_path}/out/run",
            "device=cpu",
            "threads=1",
            "profile.n_episodes=1",
            "profile.n_observations=2",
            "profile.noise_seeds=[0]",
            "eval.n_test=3",
            "eval.n_envs=2",
            "eval.n_workers=2",
            "eval.n_videos=0",
            "benchmark.n_chunks=0",
            "task.environment.max_steps=16",
            *overrides,
        )

    return make


def run(cfg):
    settings = check(cfg, "eval", [])
    experiment = load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)
    return evaluate(experiment, open_output_dir(experiment), lambda line: None)


@every_task
def test_profile_cache_and_stage_metrics(make_cfg, tmp_path, task):
    results = run(make_cfg(task, "cache=bac", "cache.budget=2", "cache.top_k=1")).results
    assert sorted(results["metrics"]) == sorted(STAGES[task])
    for estimate in results["metrics"].values():
        low, high = estimate["interval_95"]
        assert 0.0 <= low <= estimate["mean"] <= high <= 1.0 and high - low > 0.5  # three episodes prove little
    assert metrics_table(results).row_count == len(STAGES[task])
    assert results["rollout"]["env_steps"] == 48 and 0 < results["rollout"]["policy_share"] < 1
    assert "48 environment steps" in throughput_line(results)
    assert (tmp_path / "assets" / task / "profile.json").exists()
    run(make_cfg(task, "cache=full", f"output_dir={tmp_path}/out/full"))
    comparison = compare(tmp_path / "out")
    rows = comparison.rows
    assert comparison.references == ("full",) and rows[0]["sampler"] == "ddpm6" and len(rows) == 2
    assert set(rows[0]["metrics"]) == set(STAGES[task])


@every_task
def test_a_policy_of_another_task_is_refused(make_cfg, tmp_path, task):
    cfg = make_cfg(task, "cache=full", "task.n_obs_steps=2")
    with pytest.raises(ConfigError, match="n_obs_steps"):
        run(cfg)
    other = {"block_pushing": "kitchen_scripted_demos", "kitchen_scripted_demos": "block_pushing"}[task]
    cfg = make_cfg(task, "cache=full")
    wrong = config(f"task={other}", f"checkpoint={cfg.checkpoint}", "device=cpu")
    pytest.importorskip({"block_pushing": "pybullet", "kitchen_scripted_demos": "mujoco"}[other])
    with pytest.raises(ConfigError, match="action_dim"):
        load_experiment(check(wrong, "eval", []), n_test=1, n_train=0)


@every_task
def test_training_without_demonstrations_says_how_to_make_them(tmp_path, task):
    result = subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts" / "train.py"),
            f"task={task}",
            f"task.dataset.zarr_path={tmp_path}/none",
            f"output_dir={tmp_path}/train",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1 and f"bac demos task={task}" in result.stderr and "Traceback" not in result.stderr


def test_scripted_demonstrations_are_named_in_every_result():
    cfg = config("task=kitchen_scripted_demos")
    assert "scripted_demos" in cfg.task.name and "scripted_demos" in cfg.task.dataset.zarr_path
    assert cfg.checkpoint == f"checkpoint/{cfg.task.name}/ddpm100"


def test_results_of_the_scripted_policy_tell_so(make_cfg):
    results = run(make_cfg("kitchen_scripted_demos", "cache=full")).results
    assert results["task"] == "kitchen_scripted_demos"
