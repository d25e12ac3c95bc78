"""Settings of tune, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from bac_workbench.settings.evaluation import method_problems, profile_problems
from bac_workbench.settings.kinds import (
    Count,
    CountOrZero,
    EnvSeed,
    Kind,
    NoiseSeed,
    Positive,
    Section,
    Text,
    Workers,
    choice,
    integer,
    list_of,
    nullable,
    number,
)
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.recordings import RecordingSettings, recording_problems
from bac_workbench.settings.rules import Problem, Values, device_problems, precision_problems, seed_problems
from bac_workbench.settings.task import PathOrNull, Precision, Wandb

FEWEST_PAIRS = 5  # of which anything can be said
BLOCK = 10_000  # seeds that a stage may take
Counts = Annotated[
    list_of(integer(1, BLOCK), "[20,40,60,100]"), Kind("a list of ascending numbers such as [20,40,100]")
]


class Screening(Section):
    n_episodes: Count
    n_states: integer(2, 100_000)
    n_samples: integer(2, 10_000)
    max_energy: Positive
    keep: Count


class Selection(Section):
    start_seed: EnvSeed
    rounds: Counts
    keep: Count


class Certification(Section):
    start_seed: EnvSeed
    looks: Counts


class Rollouts(Section):
    n_envs: integer(1, 10_000)
    n_workers: Workers


class TuningTimes(Section):
    n_chunks: Count
    warmup: CountOrZero


class Tune(RecordingSettings):
    launcher: Launcher
    margin: number(above=0, below=1)
    alpha: number(above=0, below=0.5)
    target_hz: nullable(Positive)
    candidates: list_of(Text, "[full@ancestral5,full@ddim16]")
    extra_candidates: list_of(Text, "[bac_s20]", empty=True)
    runtime: choice("auto", "reference", "planned", "compiled")
    precisions: list_of(Precision, "[fp32,bf16]")
    seed: NoiseSeed
    timing: TuningTimes
    screen: Screening
    selection: Selection
    certification: Certification
    rollouts: Rollouts
    output_dir: PathOrNull
    wandb: Wandb

    @property
    def profiles_observations(self) -> bool:
        """A task with other states to profile on keeps them: the recording is then screened on alone."""
        others = self.task.environment is not None or self.task.dataset is not None
        return super().profiles_observations and not others

    @property
    def methods(self) -> list[str]:
        """All candidates, as they were written."""
        return list(dict.fromkeys([*self.candidates, *self.extra_candidates]))

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        for precision in values("precisions") or ():
            yield from (
                ("precisions", problem)
                for _, problem in precision_problems(
                    lambda name, precision=precision: precision if name == "precision" else values(name),
                    [values("runtime")],
                )
            )
        yield from profile_problems(values)
        yield from recording_problems(values)
        for name in ("candidates", "extra_candidates"):
            yield from method_problems(name, values(name), None)
            if "tuned" in (values(name) or ()):
                yield name, "tuned is what this command finds, and no candidate"
        for name in ("selection.rounds", "certification.looks"):
            yield from _count_problems(name, values(name))
        yield from _block_problems(values)


def _count_problems(name: str, counts: list[int] | None) -> Iterator[Problem]:
    if counts is None:
        return
    if counts != sorted(counts):
        yield name, "give ascending numbers of seeds"
    elif counts[-1] < FEWEST_PAIRS or (name == "certification.looks" and counts[0] < FEWEST_PAIRS):
        yield name, f"{FEWEST_PAIRS} seeds at least are needed for any verdict"


def _block_problems(values: Values) -> Iterator[Problem]:
    """Seeds that are judged on are nobody else's."""
    selection, certification = "selection.start_seed", "certification.start_seed"
    for name in (selection, certification):
        yield from seed_problems(values(name), BLOCK, name, "a stage's")
    others = {
        "task.seeds.test_start_seed": (values("task.seeds.test_start_seed"), BLOCK),
        "task.seeds.train_start_seed": (values("task.seeds.train_start_seed"), BLOCK),
        "profile.seed_start": (values("profile.seed_start") or 20_000, values("profile.n_episodes") or 8),
        selection: (values(selection), BLOCK),
    }
    for name in (selection, certification):
        start = values(name)
        for other, (first, count) in others.items():
            if (
                other != name
                and start is not None
                and first is not None
                and start < first + count
                and first < start + BLOCK
            ):
                yield name, f"its {BLOCK:,} seeds would be those of {other}={first}: use seeds that nothing else uses"
                break
