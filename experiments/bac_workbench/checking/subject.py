"""What is checked: a cache, a certificate or a schedule's file, on a sampler; and that it has not seen what it is
judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bac.profile_matrices import Profile
from bac.profile_source import Source
from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.settings.cache import Cache
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError


class Given(Cache):
    """A schedule's file.

    Attributes:
        stored: the schedule.
    """

    method: ClassVar[str] = "schedule"
    stored: Any

    @property
    def label(self) -> str:
        """What the schedule says of itself: its file may have any name."""
        made = self.stored.provenance
        return made.method if made.budget is None else f"{made.method}_s{made.budget}"

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule | None:
        return self.stored


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        experiment: with its sampler and cache.
        schedule: None: every block at every step.
    """

    experiment: Experiment
    schedule: Schedule | None

    @property
    def name(self) -> str:
        """Cache, sampler where it is not the checkpoint's own, precision where it is not fp32."""
        experiment = self.experiment
        own = experiment.sampler_name == experiment.own_sampler_name
        name = experiment.cache.label + ("" if own else f"@{experiment.sampler_name}")
        precision = experiment.settings.precision
        return name if precision == "fp32" else f"{name}/{precision}"

    @property
    def folder(self) -> str:
        return self.name.replace("@", "-").replace("/", "-")


def subject_of(experiment: Experiment, say: Callable[[str], None]) -> Subject:
    """The setting that the command names, with its schedule, which is made if need be from what is not held out.

    Raises:
        ConfigError: it is the full policy itself, or was made from observations that it would be judged on.
        ScheduleError: the schedule's file is for another policy or sampler.
    """
    settings = experiment.settings
    if settings.schedule is not None:
        experiment = experiment.with_cache(Given(stored=given(settings.schedule, experiment)))
    subject = Subject(experiment, schedule_for(experiment, say))
    if subject.name == "full":
        raise ConfigError(
            "this is the full policy itself: name what to check, such as cache=bac cache.budget=10, cache=tuned, "
            "schedule=<file> or sampler=ddim16"
        )
    require_unseen(subject)
    return subject


def given(path: str, experiment: Experiment) -> Schedule:
    schedule = Schedule.load(Path(path).expanduser())
    schedule.check_fits(experiment.blocks, experiment.steps, experiment.loaded.hash)
    made_for = schedule.provenance.sampler
    if made_for is not None and made_for != experiment.sampler_name:
        raise ConfigError(f"{path} is for sampler {made_for}, and this one is {experiment.sampler_name}: set sampler=")
    return schedule


def require_unseen(subject: Subject) -> None:
    """Raises ConfigError where the schedule comes from episodes that are held out now."""
    recordings = subject.experiment.recordings
    if subject.schedule is None or recordings is None:
        return
    source = Source.parse(str(subject.schedule.provenance.extras.get("observations_from", "")))
    seen = [] if source.recording != recordings.digest else sorted(set(source.episodes) & set(recordings.judged))
    if seen:
        raise ConfigError(
            f"{subject.name} was made from {recordings.unit} {source.episodes.start}..{source.episodes.stop - 1} of "
            f"this recording, and {recordings.unit} {recordings.judged.start}..{recordings.judged.stop - 1} are held "
            f"out (held_out={recordings.held_out:g}): nothing is judged on what it was made from. Use the same "
            "held_out= as for the profile, or another recording"
        )
