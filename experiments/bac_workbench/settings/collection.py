"""Settings of collect, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bac_workbench.settings.caches import Cache, CacheSection, make_cache
from bac_workbench.settings.evaluation import PolicySettings, cache_problems, profile_problems
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    EnvSeed,
    NoiseSeed,
    Path,
    Text,
    Workers,
    choice,
    integer,
    number,
)
from bac_workbench.settings.rules import Problem, Values, device_problems, precision_problems, seed_problems
from bac_workbench.settings.sampler import Sampler, sampler_problems
from bac_workbench.settings.task import ActingHorizon, Precision, Runtime

FORMATS = ("lerobot", "original")


class Collect(PolicySettings):
    cache: CacheSection
    sampler: Sampler
    seed: NoiseSeed
    runtime: Runtime
    precision: Precision
    horizon: ActingHorizon
    output_dir: Path
    format: choice(*FORMATS)
    n_episodes: Count
    success_only: Boolean
    seed_start: EnvSeed
    fps: number(above=0, high=1000)
    scene: Boolean
    description: Text
    n_envs: integer(1, 10_000)
    n_workers: Workers

    @property
    def sampler_options(self) -> dict[str, Any]:
        return {} if self.sampler is None else self.sampler.to_dict()

    @property
    def chosen_cache(self) -> Cache:
        return make_cache(self.cache.to_dict())

    @property
    def profiling_runtime(self) -> str:
        return "reference" if self.runtime == "reference" else "planned"

    @property
    def chosen_horizon(self) -> str:
        return self.horizon

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from precision_problems(values, [values("runtime")])
        yield from seed_problems(values("seed_start"), values("n_episodes"), "seed_start", "n_episodes")
        yield from profile_problems(values)
        yield from cache_problems(values)
        yield from sampler_problems(values)
        if values("format") == "original" and values("scene") is False:
            yield "scene", "format=original has a video of the scene for each episode: leave it true"
