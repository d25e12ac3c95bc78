"""The robomimic tasks in the evaluation loop, with the settings of the published benchmark."""

from __future__ import annotations

from functools import partial

import gymnasium

from diffusion_policy.common.config import ConfigError
from diffusion_policy.env.robomimic.definition import TASKS
from diffusion_policy.env_runner.task import TaskAdapter

N_TRAIN = 6  # of the original, where there are demonstrations to start from
PACKAGES = ("mujoco", "robosuite", "h5py")


def make_robomimic_env(
    task: str,
    image: bool,
    abs_action: bool,
    reflections: bool,
    render_size: tuple[int, int],
    initial_states: str | None,
    train_seeds: range,
) -> gymnasium.Env:
    """The environment; imported here, so that describing the task needs no simulator."""
    from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv

    env = RobomimicEnv(task, image, abs_action, reflections, render_size)
    if initial_states is None:
        return env
    from diffusion_policy.env_runner.robomimic_starts import RecordedStarts

    return RecordedStarts(env, initial_states, train_seeds)


def robomimic_task(
    task: str,
    dataset: str = "ph",
    image: bool = True,
    abs_action: bool = True,
    n_obs_steps: int = 2,
    n_action_steps: int = 8,
    n_latency_steps: int = 0,
    max_steps: int | None = None,
    n_train: int | None = None,
    train_start_seed: int = 0,
    n_test: int = 50,
    test_start_seed: int = 100_000,
    initial_states: str | None = None,
    reflections: bool = False,
    video_size: tuple[int, int] = (240, 240),
    name: str | None = None,
) -> TaskAdapter:
    """One of the robomimic tasks (see `RobomimicEnv`). The score of an episode is 1 if the task was done, else 0.

    Args:
        task: "lift", "can", "square", "transport" or "tool_hang".
        dataset: "ph" or "mh", the demonstrations that the policy learnt from; they decide about the step limit.
        max_steps: None: the benchmark's step limit.
        n_train: train seed i starts where demonstration i did. None: as many as the original, if `initial_states` is given.
        initial_states: a data file of robomimic (HDF5) with the demonstrations in which train episodes start.
        reflections: draw reflections, as the original does at twice the time of an evaluation.
        video_size: height and width of the video frames, px, even.
        name: in the results; None: <task>_<dataset>, or <task>_lowdim_<dataset> without images.

    Raises:
        ConfigError: there is no such task or data set, or train episodes have no demonstrations to start from.
    """
    if task not in TASKS:
        raise ConfigError(f"there is no robomimic task {task!r}; use one of {', '.join(TASKS)}")
    definition = TASKS[task]
    if dataset not in definition.max_steps:
        raise ConfigError(
            f"there are no {dataset!r} demonstrations of {task!r}; use {' or '.join(definition.max_steps)}"
        )
    if n_train is None:
        n_train = 0 if initial_states is None else N_TRAIN
    if n_train and initial_states is None:
        raise ConfigError(
            f"the {n_train} train episodes of {task!r} start where demonstrations did: name the file with "
            "them (task.adapter.initial_states=data/robomimic/...hdf5), or evaluate without (eval.n_train=0)"
        )
    train_seeds = range(train_start_seed, train_start_seed + n_train)
    sees = {"obs_shapes": definition.image_shapes} if image else {"obs_dim": definition.obs_dim}
    return TaskAdapter(
        name=name or (f"{task}_{dataset}" if image else f"{task}_lowdim_{dataset}"),
        make_env=partial(
            make_robomimic_env,
            task,
            image,
            abs_action,
            reflections,
            tuple(video_size),
            None if initial_states is None else str(initial_states),
            train_seeds,
        ),
        action_dim=definition.action_dim(abs_action),
        n_obs_steps=n_obs_steps,
        n_action_steps=n_action_steps,
        n_latency_steps=n_latency_steps,
        max_steps=definition.max_steps[dataset] if max_steps is None else max_steps,
        n_train=n_train,
        train_start_seed=train_start_seed,
        n_test=n_test,
        test_start_seed=test_start_seed,
        extra="robomimic",
        packages=PACKAGES,
        **sees,
    )
