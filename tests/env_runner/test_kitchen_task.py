"""Franka Kitchen in the rollout loop, in worker processes, and its configs."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.kitchen.definition import CONTROL_HIGH, CONTROL_LOW, TASKS
from diffusion_policy.env_runner.kitchen import kitchen_environment
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Requirements, Seeds, Task, task_from_config
from tests.conftest import ROOT


def task_config(name):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("train", [f"task={name}"])


def test_published_settings():
    task = task_from_config(task_config("kitchen_lowdim_abs").task, n_train=6, n_test=50)
    assert [e.seed for e in task.episodes()] == [*range(6), *range(100_000, 100_050)]
    assert task.environment.max_steps == 280 and (task.environment.obs_dim, task.environment.action_dim) == (60, 9)
    assert (task.chunking.n_obs_steps, task.chunking.n_action_steps) == (4, 8)
    assert task.environment.score(np.array([0, 1, 0, 2.0])) == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    "name, abs_action, width",
    [
        ("kitchen_scripted_demos", True, 256),
        ("kitchen_lowdim_abs", True, 768),
        ("kitchen_lowdim", False, 768),
    ],
)
def test_configs(name, abs_action, width):
    config = task_config(name)
    task = task_from_config(config.task)
    assert task.name == config.task.name == name and task.environment.make.args[:2] == (abs_action, 0.1)
    assert (config.task.horizon, config.task.dataset.windows.pad_before, config.task.dataset.windows.pad_after) == (
        16,
        3,
        7,
    )
    model = config.task.policy.model
    assert (model.n_layer, model.n_head, model.n_emb, model.cond_dim, model.horizon) == (8, 4, width, 60, 16)
    assert config.training.batch_size == 256 and config.training.weight_decay == 1e-3


def test_the_published_policy_has_80_million_parameters():
    model = instantiate(task_config("kitchen_lowdim_abs").task.policy.model)
    assert 75e6 < sum(parameter.numel() for parameter in model.parameters()) < 85e6


def test_a_missing_mujoco_is_named_before_any_worker_starts():
    environment = replace(kitchen_environment(), requirements=Requirements(("no_such_simulator",), extra="kitchen"))
    with pytest.raises(MissingExtraError, match=r"no_such_simulator.*pip install 'bac-workbench\[kitchen\]'"):
        Task("kitchen", environment).vector_env(n_envs=1)


def wander(obs, active, episodes, chunk_index):
    """[N, 4, 60] -> [N, 8, 9], around where the robot is."""
    swing = 0.3 * np.sin(np.reshape(chunk_index, (-1, 1, 1)) + np.arange(8)[:, None] / 3 + np.arange(9))
    return np.clip(obs[:, -1:, :9] + swing, CONTROL_LOW, CONTROL_HIGH)


def test_rollout_in_worker_processes():
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium_robotics")
    task = Task("kitchen", kitchen_environment(max_steps=12), Chunking(4, 8), Seeds(n_train=1, n_test=2))
    with task.vector_env(n_envs=2, n_workers=2) as env:
        results, stats = rollout(wander, env, task.episodes())
    with task.vector_env(n_envs=2, n_workers=0) as env:
        expected, _ = rollout(wander, env, task.episodes())
    assert [r.metrics for r in results] == [r.metrics for r in expected]
    assert all(r.env_steps == 12 and r.truncated for r in results)
    assert set(results[0].metrics) == {*(f"p{n}" for n in range(1, 8)), *TASKS}
    assert stats.env_steps == 36
