"""Measures what the figures show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.progress import Progress, TaskID

from bac.block_errors import BlockErrors, block_errors
from bac.profile_matrices import Profile
from bac.profiling import profile_features
from bac.schedule import Schedule
from bac_workbench.figures.numbers import MapDistance, distances
from bac_workbench.figures.states import States
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.setup.experiment import Experiment

Matrices = dict[str, dict[str, np.ndarray]]  # metric -> block -> [K, K]


@dataclass(frozen=True)
class Measured:
    """The numbers behind the figures.

    Attributes:
        profile: similarity of the task's profile.
        schedules: by method.
        states: of the two episodes.
        episodes: similarity in each of them.
        distances: metric -> block -> distance of the two.
        errors: of the schedules, on the states of both episodes.
    """

    profile: Profile
    schedules: dict[str, Schedule]
    states: States
    episodes: tuple[Matrices, Matrices]
    distances: dict[str, dict[str, MapDistance]]
    errors: BlockErrors


def measure(experiment: Experiment, states: States, profile: Profile, schedules: dict[str, Schedule]) -> Measured:
    """Runs the chains, uncached and cached, on the states of the episodes, with the noise seeds of the profile."""
    policy, loop = experiment.policy, experiment.sampler
    seeds, batch = profile.info.noise_seeds, ProfileSettings.of(experiment.settings.profile).batch_size
    with Progress(transient=True) as bar:
        found: list[Matrices] = []
        for name, inputs in zip(states.names, states.of_each):
            job = bar.add_task(f"profiling {name}")
            found.append(profile_features(loop, inputs, seeds, batch, partial(_count, bar, job)))
        job = bar.add_task("measuring errors under caching")
        errors = block_errors(
            loop,
            {name: schedules[name] for name in experiment.settings.caches},
            states.inputs,
            seeds,
            policy.chunk,
            policy.action_dim,
            batch,
            partial(_count, bar, job),
        )
    apart = {metric: distances(found[0][metric], found[1][metric]) for metric in experiment.settings.metrics}
    return Measured(profile, schedules, states, (found[0], found[1]), apart, errors)


def _count(bar: Progress, job: TaskID, done: int, total: int) -> None:
    bar.update(job, completed=done, total=total)
