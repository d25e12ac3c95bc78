"""Push-T in the rollout loop, in worker processes, as an evaluation runs it."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

pytest.importorskip("pymunk")
pytest.importorskip("shapely")

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env_runner.pusht import keypoints_environment
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Requirements, Seeds, Task, task_from_config
from tests.conftest import ROOT


def push_the_middle(obs, active, episodes, chunk_index):
    """Aims for the block's keypoint nearest to the middle of its stem."""
    return np.repeat(obs[:, -1:, 14:16], 8, axis=1)


def test_published_settings():
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        task = task_from_config(compose("train", ["task=pusht_lowdim"]).task, n_train=6, n_test=50)
    episodes = task.episodes()
    assert [(e.index, e.split, e.seed) for e in episodes[:2]] == [(0, "train", 0), (1, "train", 1)]
    assert [(e.index, e.split, e.seed) for e in episodes[5:7]] == [(5, "train", 5), (6, "test", 100000)]
    assert len(episodes) == 56 and episodes[-1].seed == 100049
    assert task.environment.max_steps == 300 and (task.environment.obs_dim, task.environment.action_dim) == (20, 2)


def test_the_slot_shows_what_the_policy_sees():
    slot = Task("pusht_lowdim", keypoints_environment(), Chunking(n_obs_steps=3)).make_slot()
    obs = slot.reset(seed=0).obs
    assert obs.shape == (3, 20) and obs.dtype == np.float32
    np.testing.assert_allclose(obs[0, 18:], [222, 97])  # legacy reset of seed 0
    assert slot.env.legacy


def test_rollout_in_worker_processes(tmp_path):
    pytest.importorskip("pygame")
    pytest.importorskip("cv2")
    task = Task("pusht_lowdim", keypoints_environment(max_steps=20), seeds=Seeds(n_train=1, n_test=3))
    with task.vector_env(n_envs=2, n_workers=2) as env:
        results, stats = rollout(push_the_middle, env, task.episodes(), media_dir=tmp_path / "media", video_indices=[0])
    with task.vector_env(n_envs=2, n_workers=0) as env:
        expected, _ = rollout(push_the_middle, env, task.episodes())
    assert [r.score for r in results] == [r.score for r in expected]
    assert all(r.env_steps == 20 and r.policy_calls == 3 and r.truncated and not r.success for r in results)
    assert all(r.score == r.max_reward and 0 <= r.score <= 1 for r in results)
    assert results[0].video == "media/train_0.mp4" and (tmp_path / results[0].video).stat().st_size > 1000
    assert stats.env_steps == 80


def test_a_missing_package_is_named_before_any_worker_starts():
    requirements = Requirements(("pymunk", "no_such_simulator"), extra="pusht")
    with pytest.raises(MissingExtraError, match=r"no_such_simulator.*pip install 'bac-workbench\[pusht\]'"):
        Task("pusht_lowdim", replace(keypoints_environment(), requirements=requirements)).vector_env(n_envs=1)
