"""Settings of collect, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator

from bac_workbench.settings.evaluation import ActingSettings
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    EnvSeed,
    Path,
    Text,
    Workers,
    choice,
    integer,
    number,
)
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.rules import Problem, Values, seed_problems

FORMATS = ("lerobot", "original")


class Collect(ActingSettings):
    launcher: Launcher
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

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from ActingSettings.rules(values)
        yield from seed_problems(values("seed_start"), values("n_episodes"), "seed_start", "n_episodes")
        if values("format") == "original" and values("scene") is False:
            yield "scene", "format=original has a video of the scene for each episode: leave it true"
