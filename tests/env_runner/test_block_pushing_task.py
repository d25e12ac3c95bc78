"""Block Pushing in the rollout loop, in worker processes, and its configs."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env_runner.block_pushing import block_pushing_environment
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Requirements, Seeds, Task, task_from_config
from tests.conftest import ROOT


def task_config(name):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("train", [f"task={name}"])


def block_pushing_task(max_steps=350, **seeds):
    return Task("block_pushing", block_pushing_environment(max_steps), Chunking(3, 1), Seeds(**seeds))


def test_published_settings():
    task = task_from_config(task_config("block_pushing").task, n_train=6, n_test=50)
    episodes = task.episodes()
    assert [e.seed for e in episodes] == [*range(6), *range(100_000, 100_050)]
    assert task.environment.max_steps == 350 and (task.environment.obs_dim, task.environment.action_dim) == (16, 2)
    assert (task.chunking.n_obs_steps, task.chunking.n_action_steps) == (3, 1)
    assert task.environment.score(np.array([0, 0.49, 0, 0.49, 0.51])) == pytest.approx(1.0)


@pytest.mark.parametrize("name, abs_action", [("block_pushing", False), ("block_pushing_abs", True)])
def test_configs(name, abs_action):
    config = task_config(name)
    task = task_from_config(config.task)
    assert task.name == config.task.name == name and task.environment.make.args[0] is abs_action
    assert config.task.dataset.abs_action is abs_action
    assert (config.task.horizon, config.task.dataset.windows.pad_before, config.task.dataset.windows.pad_after) == (
        5,
        2,
        0,
    )
    model = config.task.policy.model
    assert (model.n_layer, model.n_head, model.n_emb, model.cond_dim, model.horizon) == (8, 4, 256, 16, 5)
    assert config.training.weight_decay == 1e-3 and list(config.training.betas) == [0.9, 0.95]


def test_the_effector_target_can_be_hidden():
    shown = np.arange(16.0)
    hidden = block_pushing_environment(obs_eef_target=False).policy_observation(shown)
    np.testing.assert_array_equal(hidden[8:10], 0.0)
    np.testing.assert_array_equal(np.delete(hidden, [8, 9]), np.delete(shown, [8, 9]))
    assert shown[8] == 8.0 and block_pushing_environment().policy_observation is None


def test_a_missing_pybullet_is_named_before_any_worker_starts():
    environment = replace(
        block_pushing_environment(), requirements=Requirements(("no_such_simulator",), extra="blockpush")
    )
    with pytest.raises(MissingExtraError, match=r"no_such_simulator.*pip install 'bac-workbench\[blockpush\]'"):
        Task("block_pushing", environment).vector_env(n_envs=1)


def straight_to_the_block(obs, active, episodes, chunk_index):
    """From below, through block 1: [N, 3, 16] -> [N, 1, 2]."""
    below = obs[:, -1, 0:2] - [0.0, 0.05]
    delta = np.where((obs[:, -1, 8:9] - below[:, :1]) ** 2 > 1e-5, below - obs[:, -1, 8:10], [0.0, 0.03])
    return np.clip(delta, -0.03, 0.03)[:, None]


def test_rollout_in_worker_processes(tmp_path):
    pytest.importorskip("pybullet")
    task = block_pushing_task(n_train=1, n_test=2, max_steps=12)
    with task.vector_env(n_envs=2, n_workers=2) as env:
        results, stats = rollout(
            straight_to_the_block, env, task.episodes(), media_dir=tmp_path / "media", video_indices=[0]
        )
    with task.vector_env(n_envs=2, n_workers=0) as env:
        expected, _ = rollout(straight_to_the_block, env, task.episodes())
    assert [r.score for r in results] == [r.score for r in expected]
    assert all(r.env_steps == 12 and r.truncated and not r.success for r in results)
    assert all(r.metrics == {"p1": 0.0, "p2": 0.0} for r in results)
    assert (tmp_path / results[0].video).stat().st_size > 1000
    assert stats.env_steps == 36
