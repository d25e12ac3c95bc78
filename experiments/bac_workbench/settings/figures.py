"""Settings of figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from bac.similarity import METRICS
from bac_workbench.settings.caches import CACHES
from bac_workbench.settings.evaluation import ProfilingSettings
from bac_workbench.settings.kinds import Count, CountOrZero, EnvSeed, Kind, choice, list_of, nullable
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.methods import has_budget
from bac_workbench.settings.rules import Problem, Values, seed_problems
from bac_workbench.settings.sampler import Steps
from bac_workbench.settings.task import PathOrNull

#: caches with a budget, whose errors can be drawn beside each other
DRAWABLE = tuple(name for name, cache in CACHES.items() if has_budget(cache))
TwoEpisodes = Annotated[
    list_of(CountOrZero, "[0,1]"), Field(min_length=2, max_length=2), Kind("two different episodes such as [0,1]")
]


class Figures(ProfilingSettings):
    launcher: Launcher
    metrics: list_of(choice(*METRICS), "[cosine,l1,mse]")
    episodes: TwoEpisodes
    first_seed: EnvSeed
    n_states: Count
    caches: list_of(choice(*DRAWABLE), "[uniform,bac]")
    budget: Steps
    mark: nullable(choice(*DRAWABLE))
    output_dir: PathOrNull

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from ProfilingSettings.rules(values)
        budget, steps = values("budget"), values("sampler.steps")
        if budget is not None and steps is not None and budget > steps:
            yield "budget", f"use 1 to {steps}, the sampler's number of steps"
        episodes = values("episodes")
        if episodes:
            yield from seed_problems(values("first_seed"), max(episodes) + 1, "first_seed", "max(episodes)+1")
