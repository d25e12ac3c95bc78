"""Observations to profile on: states that the full policy visits in its simulator, or those of the task's data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from rich.progress import Progress

from bac.acceleration import accelerate
from bac_workbench.settings.task import Task
from bac_workbench.setup.acting import acting
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.observation import Observation, apply, stack
from diffusion_policy.env_runner.rollout import rollout


def evenly(total: int, wanted: int) -> list[int]:
    """`wanted` of the indices 0 ... total - 1 (all if there are fewer), spread evenly."""
    return np.linspace(0, total - 1, min(wanted, total)).round().astype(int).tolist()


def visited_observations(
    experiment: Experiment, n_episodes: int, seed_start: int, n_observations: int, bar: Progress
) -> tuple[Observation, int]:
    """Observations [N, To, Do] (or [N, To, ...] by name) spread evenly over rollouts of the full policy.

    The rollouts denoise the tokens that reach the executed actions, which are those of all tokens.

    Returns:
        The observations, and how many the rollouts visited.
    """
    task = experiment.task
    episodes = [Episode(i, seed_start + i, "train") for i in range(n_episodes)]
    job = bar.add_task("rolling out the full policy", total=n_episodes)
    visited: list[Observation] = []
    with (
        experiment.attached() as policy,
        accelerate(policy, runtime=experiment.settings.profiling_runtime) as fast,
        task.vector_env(n_episodes, None if task.environment.one_env_per_process else 0) as env,
    ):
        full_policy = acting(fast.predict_action, seed_start)

        def act(obs, active, running, chunk_index):
            visited.extend(apply(lambda batch, slot=slot: batch[slot], obs) for slot in np.flatnonzero(active))
            return full_policy(obs, active, running, chunk_index)

        rollout(act, env, episodes, on_episode=lambda result: bar.advance(job))
    return stack([visited[i] for i in evenly(len(visited), n_observations)]), len(visited)


def recorded_observations(task: Task, policy: Any, n_observations: int) -> tuple[Observation, int]:
    """Observations [N, To, ...] by name spread evenly over the windows of the task's data set.

    Returns:
        The observations, and how many windows there are.

    Raises:
        ConfigError: the task names no data set, or its windows are not what the policy sees.
        DatasetError: the data are not there, or damaged.
    """
    windows = _data_sets(task)[0]
    return _observed(windows, evenly(len(windows), n_observations), task, policy), len(windows)


def demonstration_observations(
    task: Task, policy: Any, numbers: Sequence[int], n_observations: int
) -> list[Observation]:
    """Of each of these demonstrations, up to `n_observations` observations [N, To, ...] by name, spread evenly over it.

    Args:
        numbers: as they are counted in the data set, from 0; those that validate are there, too.

    Raises:
        ConfigError, DatasetError: as of `recorded_observations`; or a demonstration is not there.
    """
    data_sets = [part for part in _data_sets(task) if part is not None]
    if any(getattr(part, "episodes", None) is None for part in data_sets):
        raise ConfigError(
            f"the data set of task {task.name} does not tell its demonstrations apart: give it `episodes`, the number "
            "of each window's demonstration, as diffusion_policy.dataset.sequence_dataset.Windows does"
        )
    there = sorted({int(number) for part in data_sets for number in part.episodes})
    if absent := [number for number in numbers if number not in there]:
        raise ConfigError(
            f"demonstration {absent[0]} is not among the {len(there)} that the data set of task {task.name} has "
            f"windows of: use numbers such as {', '.join(map(str, there[:4]))}, ..., {there[-1]}"
        )
    found = []
    for number in numbers:
        part = next(part for part in data_sets if number in part.episodes)
        own = np.flatnonzero(part.episodes == number)
        found.append(_observed(part, own[evenly(len(own), n_observations)].tolist(), task, policy))
    return found


def _data_sets(task: Task) -> Sequence[Any]:
    """Training and validation windows of the task's data set."""
    if task.dataset is None or "_target_" not in task.dataset:
        raise ConfigError(
            f"task {task.name} has neither a simulator nor a data set to profile on: name a recording with "
            "observations=<file> (bac profile, bac check, bac tune, bac benchmark), or give task.dataset a _target_"
        )
    return instantiate(task.dataset.to_dict())


def _observed(windows: Any, indices: list[int], task: Task, policy: Any) -> Observation:
    """What the policy sees in these windows."""
    batch = windows[torch.tensor(indices)]  # a batch, as training takes it
    absent = [name for name in policy.obs_shapes if name not in batch]
    if absent:
        raise ConfigError(
            f"the data set of task {task.name} has no {', '.join(absent)}, which the policy looks at; "
            f"it has {', '.join(batch)}"
        )
    return {name: np.asarray(batch[name][:, : policy.n_obs_steps]) for name in policy.obs_shapes}
