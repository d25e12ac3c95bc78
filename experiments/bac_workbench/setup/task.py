"""The task of an experiment, and whether a policy fits it."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from bac_workbench.settings.task import Task
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.task import TaskAdapter


def has_simulator(task: Task) -> bool:
    """Whether the task names an adapter."""
    return task.adapter is not None and "_target_" in task.adapter


def no_simulator(task: Task) -> str:
    """What a user can do with a task that has none."""
    return (
        f"task {task.name} has no simulator (task.adapter names no _target_), so nothing can be rolled out. "
        "What can be done instead:\n"
        "    bac profile task=...     # writes schedules from observations of its data set\n"
        "    bac benchmark task=...          # times methods on random observations\n"
        "and on the robot: "
        "with accelerate(load_policy(...).policy, Schedule.load(...)) as fast: fast.predict_action(obs)"
    )


def make_task(task: Task, **overrides: Any) -> TaskAdapter:
    """The task in its simulator, whether or not that is installed; `overrides` go before `task.adapter`."""
    try:
        return instantiate(task.adapter.to_dict(), **overrides)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):  # it says which setting is wrong
            raise error.__cause__ from None
        raise


def misfits(task: TaskAdapter, policy: Any) -> list[str]:
    """Where what the environment gives and takes differs from what the policy takes and gives."""
    shapes = {"obs": (task.obs_dim,)} if task.obs_shapes is None else dict(task.obs_shapes)
    wrong = []
    for name in dict.fromkeys([*shapes, *policy.obs_shapes]):
        own, environment = policy.obs_shapes.get(name), shapes.get(name)
        if own is None:
            wrong.append(f"it does not look at {name}, which the environment shows")
        elif environment is None:
            wrong.append(f"it needs {name} {list(own)}, which the environment does not show")
        elif own != environment:
            wrong.append(f"it needs {name} {list(own)}, the environment shows {list(environment)}")
    for name, value in {"action_dim": task.action_dim, "n_obs_steps": task.n_obs_steps}.items():
        if getattr(policy, name) != value:
            wrong.append(f"it has {name} {getattr(policy, name)} instead of {value}")
    return wrong


def execute(policy: Any, task: TaskAdapter) -> None:
    """Lets a fresh policy return the chunk that the task executes.

    That is `n_latency_steps` actions, which are dropped, and `n_action_steps` after them.

    Raises:
        ConfigError: the policy does not predict that many; the message gives the range.
    """
    latency = task.n_latency_steps
    chunk = task.n_action_steps + latency
    if chunk == policy.n_action_steps and task.n_action_steps >= 1 and latency >= 0:
        return
    longest = policy.n_action_steps if policy.pred_action_steps_only else policy.horizon - policy.n_obs_steps + 1
    both = f"task.n_action_steps={task.n_action_steps} with task.n_latency_steps={latency} is not possible: "
    if policy.pred_action_steps_only:
        raise ConfigError(
            f"{both}this policy predicts exactly the {longest} actions of a chunk; "
            "n_action_steps and n_latency_steps have to add up to that"
        )
    if latency < 0 or latency >= longest:
        raise ConfigError(
            f"task.n_latency_steps={latency} is not possible: "
            f"use 0 to {longest - 1}, as this policy predicts {longest} actions"
        )
    if not 1 <= task.n_action_steps <= longest - latency:
        raise ConfigError(
            f"{both}use 1 to {longest - latency}, as this policy predicts {longest} actions from the current one on"
        )
    policy.n_action_steps = chunk
