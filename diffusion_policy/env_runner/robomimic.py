"""The robomimic tasks in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium

from diffusion_policy.common.config import ConfigError
from diffusion_policy.env.robomimic.definition import TASKS
from diffusion_policy.env_runner.task import Environment, Requirements


def make_robomimic_env(
    task: str, image: bool, abs_action: bool, reflections: bool, render_size: tuple[int, int]
) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv

    return RobomimicEnv(task, image, abs_action, reflections, render_size)


def start_as_recorded(path: str, env: gymnasium.Env, seeds: range) -> gymnasium.Env:
    from diffusion_policy.env_runner.robomimic_starts import RecordedStarts

    return RecordedStarts(env, path, seeds)


def robomimic_environment(
    task: str,
    dataset: str = "ph",
    image: bool = True,
    abs_action: bool = True,
    max_steps: int | None = None,
    initial_states: str | None = None,
    reflections: bool = False,
    video_size: tuple[int, int] = (240, 240),
) -> Environment:
    """One of the robomimic tasks (see `RobomimicEnv`). The score of an episode is 1 if the task was done, else 0.

    Args:
        task: "lift", "can", "square", "transport" or "tool_hang".
        dataset: "ph" or "mh", the demonstrations that the policy learnt from; they decide about the step limit.
        max_steps: None: the benchmark's step limit.
        initial_states: a data file of robomimic (HDF5): train seed i starts where its demonstration i did. Without it
            there are no train episodes.
        reflections: draw reflections, as the original does at twice the time of an evaluation.
        video_size: height and width of the video frames, px, even.

    Raises:
        ConfigError: there is no such task or data set.
    """
    if task not in TASKS:
        raise ConfigError(f"there is no robomimic task {task!r}; use one of {', '.join(TASKS)}")
    definition = TASKS[task]
    if dataset not in definition.max_steps:
        raise ConfigError(
            f"there are no {dataset!r} demonstrations of {task!r}; use {' or '.join(definition.max_steps)}"
        )
    return Environment(
        make=partial(make_robomimic_env, task, image, abs_action, reflections, tuple(video_size)),
        action_dim=definition.action_dim(abs_action),
        max_steps=definition.max_steps[dataset] if max_steps is None else max_steps,
        obs_dim=None if image else definition.obs_dim,
        obs_shapes=definition.image_shapes if image else None,
        requirements=Requirements(("mujoco", "robosuite", "h5py"), extra="robomimic"),
        recorded_starts=None if initial_states is None else partial(start_as_recorded, str(initial_states)),
        starts_are_recorded=True,
    )
