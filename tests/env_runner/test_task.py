"""What a task adapter promises, apart from any simulator."""

import numpy as np
import pytest
from toy_env import ToyCameraEnv

from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import TaskAdapter

USUAL = dict(
    name="toy",
    make_env=ToyCameraEnv,
    action_dim=2,
    n_obs_steps=2,
    n_action_steps=4,
    max_steps=9,
    n_train=1,
    train_start_seed=0,
    n_test=2,
    test_start_seed=100,
    extra="toy",
    packages=(),
)


def test_observations_are_one_vector_or_named():
    with pytest.raises(ValueError, match="either obs_dim or obs_shapes"):
        TaskAdapter(**USUAL)
    with pytest.raises(ValueError, match="either obs_dim or obs_shapes"):
        TaskAdapter(**USUAL, obs_dim=3, obs_shapes={"state": (3,)})


def test_a_task_that_draws_gets_a_process_per_environment():
    task = TaskAdapter(**USUAL, obs_shapes={"state": (3,), "image": (1, 2, 2)}, one_env_per_process=True)
    for n_workers in (0, 1):
        with pytest.raises(ValueError, match="n_workers=2"):
            task.vector_env(2, n_workers)
    task.vector_env(1, 0).close()
    with task.vector_env(3) as env:
        results, _ = rollout(lambda obs, *_: np.zeros((3, 4, 2)), env, task.episodes())
    assert len({result.metrics["pid"] for result in results}) == 3
