"""Settings of stability: how much BAC's schedules depend on what was profiled."""

from __future__ import annotations

from collections.abc import Iterator

from bac_workbench.settings.evaluation import PolicySettings
from bac_workbench.settings.kinds import Count, CountOrZero, EnvSeed, NoiseSeed, Section, Workers, integer
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.rules import Problem, Values, device_problems, seed_problems
from bac_workbench.settings.sampler import Sampler, Steps, sampler_problems
from bac_workbench.settings.task import PathOrNull, Runtime


class StudyRollouts(Section):
    n_test: CountOrZero
    start_seed: EnvSeed
    n_envs: integer(1, 10_000)
    n_workers: Workers


class Stability(PolicySettings):
    launcher: Launcher
    sampler: Sampler
    budget: Steps
    top_k: CountOrZero
    draws: Count
    held_out: Count
    rollouts: StudyRollouts
    runtime: Runtime
    seed: NoiseSeed
    output_dir: PathOrNull

    @property
    def sampler_options(self) -> dict:
        return {} if self.sampler is None else self.sampler.to_dict()

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from sampler_problems(values)
        budget, steps = values("budget"), values("sampler.steps")
        if budget is not None and steps is not None and budget > steps:
            yield "budget", f"use 1 to {steps}, the sampler's number of steps"
        source = values("profile.source")
        if source not in (None, "rollouts"):
            yield "profile.source", "a study looks at states of rollouts: use rollouts"
        measured = ("n_episodes", "seed_start", "n_observations", "noise_seeds")
        for name in measured:
            if values(f"profile.{name}") is None:
                yield f"profile.{name}", "a study says what it measures: give a value"
        observations, episodes = values("profile.n_observations"), values("profile.n_episodes")
        if episodes is not None and episodes < 2:
            yield "profile.n_episodes", "episodes are compared: use 2 or more"
        if observations is not None and episodes is not None and observations % episodes:
            yield "profile.n_observations", f"use a multiple of profile.n_episodes={episodes}: each gives as many"
        both = (episodes or 0) + (values("held_out") or 0)
        yield from seed_problems(
            values("profile.seed_start"), both, "profile.seed_start", "profile.n_episodes+held_out"
        )
        yield from seed_problems(
            values("rollouts.start_seed"), values("rollouts.n_test"), "rollouts.start_seed", "rollouts.n_test"
        )
