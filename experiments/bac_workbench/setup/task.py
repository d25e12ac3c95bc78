"""The task of an experiment, and whether a policy fits it."""

from __future__ import annotations

from typing import Any

from bac_workbench.settings.task import Task as TaskSection
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.task import Task


def has_simulator(task: TaskSection) -> bool:
    """Whether the task names an environment."""
    return task.environment is not None and "_target_" in task.environment


def no_simulator(task: TaskSection) -> str:
    """What a user can do with a task that has none."""
    return (
        f"task {task.name} has no simulator (task.environment names no _target_), so nothing can be rolled out. "
        "If the policy is for a task of this project, name it with task=. What can be done without a simulator:\n"
        "    bac data inspect FILE                                   # what a recording holds for the policy\n"
        "    bac profile checkpoint=... observations=FILE output=DIR   # writes schedules\n"
        "    bac check checkpoint=... observations=FILE cache=bac      # how far a schedule is from the full policy\n"
        "    bac tune checkpoint=... observations=FILE                 # screens many settings, which proves nothing\n"
        "    bac benchmark checkpoint=...                              # times methods on random observations\n"
        "and on the robot: "
        "with accelerate(load_policy(...).policy, Schedule.load(...)) as fast: fast.predict_action(obs)"
    )


def misfits(task: Task, policy: Any) -> list[str]:
    """Where what the environment gives and takes differs from what the policy takes and gives."""
    environment, shapes = task.environment, task.environment.observation_shapes
    observed = {"obs": shapes} if isinstance(shapes, tuple) else dict(shapes)
    wrong = []
    for name in dict.fromkeys([*observed, *policy.obs_shapes]):
        own, shape = policy.obs_shapes.get(name), observed.get(name)
        if own is None:
            wrong.append(f"it does not look at {name}, which the environment shows")
        elif shape is None:
            wrong.append(f"it needs {name} {list(own)}, which the environment does not show")
        elif own != shape:
            wrong.append(f"it needs {name} {list(own)}, the environment shows {list(shape)}")
    for name, value in {"action_dim": environment.action_dim, "n_obs_steps": task.chunking.n_obs_steps}.items():
        if getattr(policy, name) != value:
            wrong.append(f"it has {name} {getattr(policy, name)} instead of {value}")
    return wrong


def execute(policy: Any, task: Task) -> None:
    """Lets a fresh policy return the chunk that the task executes.

    That is `n_latency_steps` actions, which are dropped, and `n_action_steps` after them.

    Raises:
        ConfigError: the policy does not predict that many; the message gives the range.
    """
    n_action_steps, latency = task.chunking.n_action_steps, task.chunking.n_latency_steps
    chunk = n_action_steps + latency
    if chunk == policy.n_action_steps:
        return
    longest = policy.n_action_steps if policy.pred_action_steps_only else policy.horizon - policy.n_obs_steps + 1
    both = f"task.n_action_steps={n_action_steps} with task.n_latency_steps={latency} is not possible: "
    if policy.pred_action_steps_only:
        raise ConfigError(
            f"{both}this policy predicts exactly the {longest} actions of a chunk; "
            "n_action_steps and n_latency_steps have to add up to that"
        )
    if latency >= longest:
        raise ConfigError(
            f"task.n_latency_steps={latency} is not possible: "
            f"use 0 to {longest - 1}, as this policy predicts {longest} actions"
        )
    if n_action_steps > longest - latency:
        raise ConfigError(
            f"{both}use 1 to {longest - latency}, as this policy predicts {longest} actions from the current one on"
        )
    policy.n_action_steps = chunk
