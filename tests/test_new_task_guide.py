"""docs/howto/new-task.md, as somebody follows it: its two files lie in a folder, and a policy acts in the new task."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir

from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import open_output_dir
from bac_workbench.settings import check
from bac_workbench.settings.launch import check_command_line
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError, register_resolvers, to_plain
from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.conftest import ROOT

GUIDE = (ROOT / "docs" / "howto" / "new-task.md").read_text()
FILES = re.findall(r"^## [^\n]*`my_tasks/(\S+)`\n\n```\w+\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def my_tasks(tmp_path, monkeypatch):
    """The folder of the guide, importable."""
    folder = tmp_path / "my_tasks"
    for name, text in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("reach", None)


def config(folder, *overrides):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("eval", [f"hydra.searchpath=[file://{folder}]", "task=reach", *overrides])


def save_tiny_policy(cfg, folder):
    plan = {"task": cfg.task.name, "policy": to_plain(cfg.task)["policy"]}
    plan["policy"]["model"].update(n_layer=1, n_emb=16)
    plan["policy"]["num_inference_steps"] = 4
    torch.manual_seed(0)
    policy = build_policy(plan)
    limits = torch.tensor([[-1.0], [1.0]])
    normalizer = {"obs": limits.expand(2, cfg.task.obs_dim), "action": 0.1 * limits.expand(2, cfg.task.action_dim)}
    policy.set_normalizer(LinearNormalizer.fit(normalizer))
    save_policy(folder, policy, plan, {"weights": "ema", "step": "1"})


def test_the_guide_shows_one_module_and_one_file():
    assert [name for name, _ in FILES] == ["reach.py", "task/reach.yaml"]


def test_a_policy_acts_in_the_new_task(my_tasks, tmp_path):
    save_tiny_policy(config(my_tasks), tmp_path / "policy")
    settings = [
        "cache=uniform",
        "cache.budget=2",
        f"checkpoint={tmp_path}/policy",
        f"output_dir={tmp_path}/run",
        "device=cpu",
        "threads=1",
        "eval.n_test=2",
        "eval.n_envs=2",
        "eval.n_workers=1",
        "eval.n_videos=0",
        "benchmark.n_chunks=0",
        "task.environment.max_steps=12",
    ]
    check_command_line(["--config-dir", str(my_tasks), "task=reach", *settings], "eval")
    cfg = config(my_tasks, *settings)
    experiment = load_experiment(check(cfg, "eval"), n_test=2, n_train=0)
    results = evaluate(experiment, open_output_dir(experiment), lambda line: None).results
    assert results["task"] == "reach" and [row["seed"] for row in results["episodes"]] == [100_000, 100_001]
    assert all(0 <= row["score"] <= 1 for row in results["episodes"]) and results["rollout"]["env_steps"] == 24
    assert results["metrics"]["distance"]["mean"] > 0


def test_a_wrong_setting_of_the_new_task_is_named(my_tasks):
    line = ["--config-dir", str(my_tasks), "task=reach"]
    with pytest.raises(ConfigError, match="did you mean task.environment.max_steps?"):
        check_command_line([*line, "task.environment.max_step=4"], "eval")
    (my_tasks / "task" / "reach.yaml").write_text(FILES[1][1].replace("environment:", "adapter:"))
    with pytest.raises(ConfigError, match="task.adapter: this setting is called task.environment now"):
        check_command_line(line, "eval")


def test_a_policy_of_another_task_is_refused(my_tasks, tmp_path):
    save_tiny_policy(config(my_tasks, "task.obs_dim=6"), tmp_path / "policy")
    settings = check(config(my_tasks, f"checkpoint={tmp_path}/policy", "device=cpu"), "eval")
    with pytest.raises(
        ConfigError, match=r"not a policy for task reach: it needs obs \[6\], the environment shows \[4\]"
    ):
        load_experiment(settings, n_test=2, n_train=0)


def test_a_module_that_is_not_found_is_named(my_tasks):
    cfg = config(my_tasks, "task.environment._target_=rech.reach_environment", f"checkpoint={my_tasks}", "device=cpu")
    with pytest.raises(ConfigError, match=r"_target_=rech.reach_environment cannot be imported.*'rech'.*PYTHONPATH"):
        load_experiment(check(cfg, "eval"), n_test=2, n_train=0)
