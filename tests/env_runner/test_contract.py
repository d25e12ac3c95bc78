"""Environments of one's own: what they lack is said, with what they have to offer."""

import dataclasses

import numpy as np
import pytest
import strange_envs
from toy_env import ToyEnv

from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Chunking, Environment, Seeds, Task
from diffusion_policy.env_runner.vector import EnvFactoryError, EnvWorkerError


def toy_task(env, **changes):
    """`changes`: other values, by name, of an attribute of one of the task's parts."""
    parts = (
        (Environment, {"make": env, "action_dim": 2, "obs_dim": 3, "max_steps": 9}),
        (Chunking, {"n_obs_steps": 2, "n_action_steps": 4}),
        (Seeds, {"n_test": 2, "test_start_seed": 0}),
    )
    names = lambda part: {item.name for item in dataclasses.fields(part)}
    return Task(
        "toy",
        *(
            part(**{**usual, **{name: value for name, value in changes.items() if name in names(part)}})
            for part, usual in parts
        ),
    )


def evaluate(task, n_workers=0, **options):
    with task.vector_env(2, n_workers) as env:
        return rollout(lambda obs, *_: np.zeros((2, task.chunking.n_action_steps, 2)), env, task.episodes(), **options)[
            0
        ]


@pytest.mark.parametrize(
    "name, says",
    [
        ("FourValues", "returned 4 values .*old gym's .obs, reward, done, info."),
        ("BareReset", "reset.. returned an array float64 .3. instead of .obs, info."),
        ("OldSeed", "and env.seed.., as old gym does, takes no seed="),
        ("NoSuccess", "lacks 'is_success'; it holds score"),
        ("NanReward", "the reward is nan"),
        ("NoReward", "the reward is None, not a number"),
        ("VagueEnd", "terminated is an array bool .2., not true or false"),
        ("NoInfo", "the info of step.. is None, not a dict"),
        ("LateShape", "'obs' has shape .2., the task names .3."),
        ("OtherShape", "'obs' has shape .2., the task names .3."),
        ("Named", "an observation is a dict of state, the task names obs .3."),
        ("Words", "the observation 'obs' is .*not an array of numbers"),
        ("OtherAction", "takes actions of shape .3., the task has action_dim=2"),
        ("NoActionSpace", "its action_space is None"),
        ("NoEnvironment", "NoEnvironment: it has no reset, step, close"),
        ("VagueMetric", "'coverage'. is nan"),
    ],
)
def test_what_an_environment_lacks_is_said_at_once(name, says):
    with pytest.raises(EnvWorkerError, match=says) as error:
        evaluate(toy_task(getattr(strange_envs, name)))
    message = str(error.value)
    assert "An environment has to offer" in message and name in message
    assert "Traceback" not in message and len(message.splitlines()) < 8


def test_it_is_said_from_worker_processes_too():
    with pytest.raises(EnvWorkerError, match="lacks 'is_success'") as error:
        evaluate(toy_task(strange_envs.NoSuccess), n_workers=1)
    assert "Traceback" not in str(error.value)


def test_an_error_of_the_environment_itself_keeps_its_traceback():
    with pytest.raises(EnvWorkerError, match="slot 0 .seed 0. failed: LookupError: .*the scene file is gone") as error:
        evaluate(toy_task(strange_envs.BrokenReset), n_workers=1)
    assert "strange_envs.py" in str(error.value)


def test_an_environment_that_cannot_be_closed_loses_no_result():
    with pytest.warns(UserWarning, match="slot . failed in close.*already closed"):
        results = evaluate(toy_task(strange_envs.BrokenClose))
    assert len(results) == 2
    assert len(evaluate(toy_task(strange_envs.BrokenClose), n_workers=1)) == 2


def test_an_environment_of_any_class_that_offers_it_works():
    scores = [result.score for result in evaluate(toy_task(ToyEnv))]
    assert [result.score for result in evaluate(toy_task(strange_envs.Plain))] == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize(
    "name, says",
    [
        ("NoMetadata", "metadata.'render_fps'. is None.*n_videos=0"),
        ("NoPicture", "render.. returned None.*n_videos=0"),
    ],
)
def test_what_videos_need_is_said(name, says, tmp_path):
    with pytest.raises(EnvWorkerError, match=says):
        evaluate(toy_task(getattr(strange_envs, name)), media_dir=tmp_path / "media", video_indices=[0])


def test_what_cannot_be_sent_to_workers_is_said():
    with pytest.raises(EnvFactoryError, match="cannot be sent to worker processes.*import from a module"):
        evaluate(toy_task(lambda: ToyEnv()), n_workers=1)


@pytest.mark.parametrize("n_envs, n_workers", [(0, None), (-1, 0), (2.5, 0), ("2", 0), (True, 0), (2, -1), (2, 1.5)])
def test_numbers_of_environments_and_workers_are_checked_before_anything_starts(n_envs, n_workers):
    with pytest.raises(ValueError, match="is not possible: use a whole number"):
        toy_task(ToyEnv).check_workers(n_envs, n_workers)
    toy_task(ToyEnv).check_workers(2, 5)  # more workers than environments: the others are not started


@pytest.mark.parametrize(
    "changes",
    [
        {"n_test": -1},
        {"n_test": "abc"},
        {"max_steps": 0},
        {"test_start_seed": -5},
        {"n_action_steps": 0},
        {"action_dim": 0},
    ],
)
def test_a_task_that_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes))}=.* is not possible"):
        toy_task(ToyEnv, **changes)


def test_a_task_may_execute_fewer_actions_of_a_chunk():
    whole, half = toy_task(ToyEnv), toy_task(ToyEnv, n_action_steps=2)
    a, b = evaluate(whole), evaluate(half)
    assert [result.score for result in a] == [result.score for result in b]  # the actions are all zero
    assert [result.policy_calls for result in b] == [
        2 * result.policy_calls - (result.env_steps % 4 in (1, 2)) for result in a
    ]
