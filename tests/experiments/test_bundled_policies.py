"""The policies that come with the project, in their simulators."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir

from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import open_output_dir
from bac_workbench.profiling.identity import other_settings, read_info
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import register_resolvers
from tests.conftest import ROOT


def config(*overrides):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("eval", list(overrides))


@pytest.mark.parametrize(
    ("task", "simulator", "metric", "max_steps"),
    [
        ("kitchen_scripted_demos", "gymnasium_robotics", "p1", 120),
        ("block_pushing", "pybullet", "p1", 120),
        pytest.param("lift_scripted_demos", "robosuite", None, 60, marks=pytest.mark.slow),
        pytest.param("can_scripted_demos", "robosuite", None, 140, marks=pytest.mark.slow),
    ],
)
def test_a_bundled_policy_acts_and_its_profile_is_of_its_weights(tmp_path, task, simulator, metric, max_steps):
    """One test seed, DDIM with ten steps."""
    pytest.importorskip(simulator)
    cfg = config(
        f"task={task}",
        f"checkpoint={ROOT}/checkpoint/{task}/ddpm100",
        f"output_dir={tmp_path}/run",
        "cache=full",
        "sampler=ddim10",
        "device=cpu",
        "threads=1",
        "eval.n_test=1",
        "eval.n_workers=0",
        "eval.n_videos=0",
        "benchmark.n_chunks=0",
        f"++task.environment.max_steps={max_steps}",
    )
    experiment = load_experiment(check(cfg, "eval", []), n_test=1, n_train=0)
    results = evaluate(experiment, open_output_dir(experiment), lambda line: None).results
    assert (results["metrics"][metric]["mean"] if metric else results["success_rate"]) == 1.0
    profile = json.loads((ROOT / "assets" / task / "profile.json").read_text())
    assert results["provenance"]["checkpoint_hash"] == profile["checkpoint_hash"]


@pytest.mark.parametrize("folder", sorted((ROOT / "assets").glob("*/profile.json")), ids=lambda path: path.parent.name)
def test_a_bundled_profile_is_the_one_that_default_settings_ask_for(folder):
    """Else every user would measure it again, and get another schedule than the tables'."""
    assert other_settings(read_info(folder.parent), ProfileSettings()) == []
