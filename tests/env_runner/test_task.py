"""What a task promises, apart from any simulator."""

import numpy as np
import pytest
from toy_env import ToyCameraEnv

from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Environment, Requirements, Seeds, Task, task_from_config

USUAL = {"make": ToyCameraEnv, "action_dim": 2, "max_steps": 9}


def test_observations_are_one_vector_or_named():
    with pytest.raises(ValueError, match="either obs_dim or obs_shapes"):
        Environment(**USUAL)
    with pytest.raises(ValueError, match="either obs_dim or obs_shapes"):
        Environment(**USUAL, obs_dim=3, obs_shapes={"state": (3,)})


def test_a_task_that_draws_gets_a_process_per_environment():
    shapes = {"state": (3,), "image": (1, 2, 2)}
    environment = Environment(**USUAL, obs_shapes=shapes, one_env_per_process=True)
    task = Task("toy", environment, Chunking(2, 4), Seeds(n_train=1, n_test=2, test_start_seed=100))
    for n_workers in (0, 1):
        with pytest.raises(ValueError, match="n_workers=2"):
            task.vector_env(2, n_workers)
    task.vector_env(1, 0).close()
    with task.vector_env(3) as env:
        results, _ = rollout(lambda obs, *_: np.zeros((3, 4, 2)), env, task.episodes())
    assert len({result.metrics["pid"] for result in results}) == 3


def test_a_package_that_no_extra_installs_is_named_by_itself():
    requirements = Requirements(("no_such_simulator",))
    with pytest.raises(MissingExtraError, match="'toy' needs no_such_simulator.*pip install no_such_simulator"):
        Task("toy", Environment(**USUAL, obs_dim=3, requirements=requirements)).vector_env(1)


def test_a_section_of_the_config_describes_a_task():
    section = {
        "name": "toy",
        "environment": {
            "_target_": "diffusion_policy.env_runner.pusht.keypoints_environment",
            "max_steps": 7,
        },
        "n_obs_steps": 2,
        "n_action_steps": 4,
        "n_latency_steps": 1,
        "seeds": {"train_start_seed": 3, "test_start_seed": 100},
    }
    task = task_from_config(section, n_train=2, n_test=1)
    assert task.name == "toy" and task.environment.max_steps == 7 and task.chunking == Chunking(2, 4, 1)
    assert [(episode.split, episode.seed) for episode in task.episodes()] == [("train", 3), ("train", 4), ("test", 100)]
