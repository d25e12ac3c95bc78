"""The two episodes whose maps are compared: states that the full policy visits, or those of two demonstrations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from bac.loop import SamplerInputs
from bac_workbench.profiling.observations import demonstration_observations, visited_observations
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.task import has_simulator
from diffusion_policy.env_runner.observation import Observation, apply


@dataclass(frozen=True)
class States:
    """States of two episodes.

    Attributes:
        names: what the episodes are called.
        counts: how many states there are of each.
        inputs: of all of them, those of the first episode first.
    """

    names: tuple[str, str]
    counts: tuple[int, int]
    inputs: SamplerInputs

    @property
    def of_each(self) -> tuple[SamplerInputs, SamplerInputs]:
        first = self.counts[0]
        return self.inputs[:first], self.inputs[first : sum(self.counts)]


def source_of(experiment: Experiment) -> str:
    """Where the episodes come from: rollouts or dataset."""
    settings = experiment.settings
    source = settings.profile.source
    return ("rollouts" if has_simulator(settings.task) else "dataset") if source == "auto" else source


def states_of(experiment: Experiment) -> States:
    """States of the two episodes that the settings name.

    Raises:
        ConfigError: there is no such demonstration, or no simulator.
    """
    settings, policy = experiment.settings, experiment.policy
    found: list[Observation]
    if source_of(experiment) == "rollouts":
        seeds = [settings.first_seed + number for number in settings.episodes]
        with Progress(transient=True) as bar:
            found = [visited_observations(experiment, 1, seed, settings.n_states, bar)[0] for seed in seeds]
        names = tuple(f"seed {seed}" for seed in seeds)
    else:
        found = demonstration_observations(settings.task, policy, settings.episodes, settings.n_states)
        names = tuple(f"demonstration {number}" for number in settings.episodes)
    both = apply(lambda one, other: np.concatenate([one, other]), *found)
    counts = tuple(len(next(iter(as_tensors(part).values()))) for part in found)
    return States(names, counts, policy.sampler_inputs(as_tensors(both)))
