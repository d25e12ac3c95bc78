"""What a task promises, apart from any simulator."""

import numpy as np
import pytest
from toy_env import ToyCameraEnv

from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Environment, Seeds, Task

USUAL = dict(make=ToyCameraEnv, action_dim=2, max_steps=9)


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
