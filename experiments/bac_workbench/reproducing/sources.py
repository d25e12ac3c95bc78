"""Which trained policies the tables are of: those that are here, and how to get the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bac_workbench.locations import shipped
from bac_workbench.settings import meant
from bac_workbench.settings.reproducing import Reproduce
from bac_workbench.setup.task_files import TaskFile, task_files
from bac_workbench.setup.trainings import BEST, Training
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import WEIGHTS_FILE

TRAININGS = (0, 1, 2)


@dataclass(frozen=True)
class Source:
    """A trained policy of a task: the task's own, or a published training of it.

    Attributes:
        task: as task=<choice> names it.
        training: which published one; empty: the task's own, or that of `checkpoint=`.
    """

    task: TaskFile
    training: Training = Training()

    @property
    def settings(self) -> list[str]:
        """As `bac eval` is told."""
        return [f"task={self.task.choice}", *self.training.words.split()]

    @property
    def words(self) -> str:
        return " ".join([self.task.choice, *self.training.words.split()])

    @property
    def how_to_get(self) -> str:
        """The command that brings it."""
        if self.task.original is None:
            return f"bac train task={self.task.choice}"
        best = " name=best" if self.training.kind == BEST else ""
        return f"bac checkpoint download task={self.task.choice} train={self.training.train or 0}{best}"


@dataclass(frozen=True)
class Sources:
    """What the tables are of.

    Attributes:
        here: can be evaluated; with download=true also what will be fetched.
        lacking: is not here.
        elsewhere: tasks that have no policy here, where nobody said which tasks.
    """

    here: tuple[Source, ...]
    lacking: tuple[Source, ...]
    elsewhere: tuple[str, ...] = ()


def has_own(file: TaskFile) -> bool:
    """Whether the task's own policy is here: one that this project brings, or that was trained."""
    return (shipped(file.shipped()) / WEIGHTS_FILE).exists()


def sources_of(settings: Reproduce, others: Sequence[str]) -> Sources:
    """The policies that the settings ask for.

    Without `trainings` a task is evaluated on its own policy if that is here, else on the published trainings. Without
    `tasks` all are meant that have a policy here.

    Args:
        others: settings for the evaluations, which may name a checkpoint or download what is missing.

    Raises:
        ConfigError: a task is unknown, or has nothing that was asked for.
    """
    files = task_files()
    for name in settings.tasks or ():
        if name not in files:
            raise ConfigError(f"tasks: there is no task {name}: use {', '.join(files)}{meant(name, files)}")
    download = "download=true" in [text.lstrip("+") for text in others]
    named = any(text.lstrip("+").startswith("checkpoint=") for text in others)
    here: list[Source] = []
    lacking: list[Source] = []
    elsewhere: list[str] = []
    for choice in settings.tasks or files:
        file = files[choice]
        if named or settings.trainings is None and has_own(file):
            here.append(Source(file))
            continue
        wanted = published(file, settings)
        found = [source for source in wanted if source.training.find(file)]
        if settings.tasks is None and not found:
            elsewhere.append(choice)
            continue
        here += wanted if download and file.original is not None else found
        lacking += [] if download and file.original is not None else [item for item in wanted if item not in found]
    return Sources(tuple(here), tuple(lacking), tuple(elsewhere))


def published(file: TaskFile, settings: Reproduce) -> list[Source]:
    """The trainings of a task that are asked for; its own policy where nobody publishes one."""
    if file.original is None:
        if settings.trainings is not None and settings.tasks is not None:
            raise ConfigError(
                f"trainings: nobody publishes any of task {file.choice}: leave it out of tasks=, or trainings= out"
            )
        return [Source(file)]
    return [
        Source(file, Training(train, kind))
        for train in settings.trainings or TRAININGS
        for kind in settings.checkpoint_types
    ]


def require_all(sources: Sources) -> None:
    """Raises ConfigError, with the commands that get them, where a policy is not here."""
    if not sources.lacking and sources.here:
        return
    if not sources.lacking:
        raise ConfigError(
            "there is no policy here: name tasks=[...] and add download=true, or train one with bac train"
        )
    lines = [f"{len(sources.lacking)} checkpoints are not here; get them with"]
    lines += [f"    {source.how_to_get}" for source in sources.lacking[:12]]
    if len(sources.lacking) > 12:
        lines.append(f"    and {len(sources.lacking) - 12} more")
    if any(source.task.original for source in sources.lacking):
        lines.append("or add download=true, which gets the published ones before anything runs;")
    lines.append("or leave them out with missing=skip")
    raise ConfigError("\n".join(lines))
