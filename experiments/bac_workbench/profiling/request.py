"""What a profile is asked to be measured with."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from bac_workbench.settings.evaluation import Profile as ProfileSection
from bac_workbench.setup.experiment import Experiment

RECORDING = re.compile(r"recording-[0-9a-f]{8}-\d+-\d+")  # bac.profile_source.recording_kind
FOLDER_TAGS = {
    "source": "",
    "n_episodes": "episodes",
    "seed_start": "from",
    "n_observations": "observations",
    "noise_seeds": "noise",
}


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile is measured with; None: not asked for.

    Attributes:
        source: rollouts, dataset, or the recording and its episodes (`bac.profile_source.recording_kind`).
        n_episodes, seed_start: the rollouts of the full policy that supply the observations.
        n_observations: how many, spread evenly over what there is.
        noise_seeds: each observation is denoised once with each.
        batch_size: observations denoised together; decides the memory it takes, not what is measured.
    """

    source: str | None = None
    n_episodes: int | None = None
    seed_start: int | None = None
    n_observations: int | None = None
    noise_seeds: tuple[int, ...] | None = None
    batch_size: int = 4

    @classmethod
    def asked(cls, experiment: Experiment) -> ProfileSettings:
        """Those of an experiment, which may have recorded observations."""
        request, recordings = cls.of(experiment.settings.profile), experiment.recordings
        if recordings is not None and experiment.settings.profiles_observations:
            return dataclasses.replace(request, source=recordings.profiled_kind)
        return request

    @classmethod
    def of(cls, section: ProfileSection) -> ProfileSettings:
        """Those of a command's `profile` section."""
        return cls(
            source=None if section.source == "auto" else section.source,
            n_episodes=section.n_episodes,
            seed_start=section.seed_start,
            n_observations=section.n_observations,
            noise_seeds=None if section.noise_seeds is None else tuple(section.noise_seeds),
            batch_size=cls.batch_size if section.batch_size is None else section.batch_size,
        )

    @property
    def requested(self) -> dict[str, Any]:
        """What is asked for, by name."""
        values = {name: getattr(self, name) for name in FOLDER_TAGS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_recording(self) -> bool:
        """Whether nothing is asked for but a recording."""
        return [*self.requested] == ["source"] and RECORDING.fullmatch(str(self.source)) is not None

    def completed(self, usual: ProfileSettings) -> ProfileSettings:
        """What is not asked for as in `usual`."""
        return dataclasses.replace(usual, **self.requested, batch_size=self.batch_size)

    @property
    def folder(self) -> str:
        """A folder for a profile measured so: episodes1-observations2-noise0."""
        parts = []
        for name, value in self.requested.items():
            text = "_".join(map(str, value)) if isinstance(value, tuple) else str(value)
            short = text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:12]
            parts.append(FOLDER_TAGS[name] + short)
        return "-".join(parts) or "usual"


#: what a profile is measured with where nothing is asked for: when an evaluation needs one ...
USUAL = ProfileSettings(n_episodes=4, seed_start=20000, n_observations=32, noise_seeds=(0, 1))
#: ... and when it is made for its own sake
THOROUGH = dataclasses.replace(USUAL, n_episodes=8, n_observations=64)
