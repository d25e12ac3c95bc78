"""Settings of the commands about data and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    EnvSeed,
    Kind,
    Names,
    Path,
    Section,
    Sha256,
    Text,
    Url,
    Workers,
    choice,
    nullable,
)
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.rules import Problem, Values, seed_problems
from bac_workbench.settings.task import Dataset, PathOrNull, Task


class ChosenDataset(Section):
    """The section `dataset`: a data set in place of the task's own. It has a `_target_` where one is chosen."""

    path: Path
    cache_dir: PathOrNull


def with_chosen_dataset(settings: Section) -> Section:
    """The same settings, whose task has the data set that `dataset=` chose, if it chose one.

    Args:
        settings: of a command with the sections `task` and `dataset`.
    """
    chosen = {} if settings.dataset is None else settings.dataset.to_dict()
    if chosen.get("_target_") is None:
        return settings
    return settings.replace(task=settings.task.replace(dataset=Dataset.model_validate(chosen)))


def dataset_problems(values: Values) -> Iterator[Problem]:
    if values("dataset._target_") is not None and values("dataset.path") is None:
        yield "dataset.path", "name the folder of the data set, such as dataset.path=datas/lerobot/pusht_lowdim"


class MakeDemos(Section):
    launcher: Launcher
    task: Task
    n_episodes: Count
    seed_start: EnvSeed
    n_workers: Workers
    output: Path

    @staticmethod
    def fits(values: Values) -> str | None:
        return (
            None
            if values("task.demos")
            else f"task {values('task.name')} has no scripted expert: its demonstrations are downloaded"
        )

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from seed_problems(values("seed_start"), values("n_episodes"), "seed_start", "n_episodes")


class ConvertActions(Section):
    task: Task
    output: Path
    input: nullable(Path)
    n_workers: Workers
    evaluate: Boolean

    @staticmethod
    def fits(values: Values) -> str | None:
        return (
            None
            if values("task.robomimic_task")
            else f"task {values('task.name')} is none of robomimic: its actions need no conversion"
        )


class ConvertCheckpoint(Section):
    checkpoint: Path
    output: Path
    weights: choice("ema", "raw")
    half: Boolean
    overwrite: Boolean


class PushCheckpoint(Section):
    checkpoint: Path
    to: Annotated[Path, Kind("an address hf:user/name")]
    assets: nullable(Path)
    weights: choice("ema", "raw")
    private: Boolean
    overwrite: Boolean


class InspectData(Section):
    checkpoint: nullable(Path)
    observations_map: Names
    weights: choice("ema", "raw")


class DownloadData(Section):
    task: nullable(Text)
    verify: Boolean
    data_dir: Path
    url: nullable(Url)
    sha256: nullable(Sha256)


class DownloadCheckpoint(Section):
    task: nullable(Text)
    name: Text
    train: Annotated[int, Field(ge=0, le=2), Kind("0, 1 or 2, the published trainings")]
    checkpoint_dir: Path
    url: nullable(Url)
    sha256: nullable(Sha256)
