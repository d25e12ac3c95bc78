"""Recorded observations as an experiment needs them: matched to its policy, and split into profiled and held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bac.profile_source import describe_recording, recording_kind
from bac_workbench.settings.evaluation import PolicySettings
from diffusion_policy.common.config import ConfigError
from diffusion_policy.dataset.recordings.contract import fingerprint
from diffusion_policy.dataset.recordings.opening import open_recording
from diffusion_policy.dataset.recordings.windows import RecordedObservations
from diffusion_policy.env_runner.observation import Observation


@dataclass(frozen=True)
class Recordings:
    """A recording of the policy's observations.

    Attributes:
        observed: the recording, matched to the policy.
        digest: its fingerprint.
        held_out: last share of the episodes, which is judged on and never profiled.
    """

    observed: RecordedObservations
    digest: str
    held_out: float

    @property
    def total(self) -> int:
        """Number of episodes."""
        return len(self.observed.recording.lengths)

    @property
    def unit(self) -> str:
        """What counts as an episode."""
        return "episodes" if self.observed.recording.window_steps is None else "windows"

    @property
    def profiled(self) -> range:
        """Episodes to profile on.

        Raises:
            ConfigError: all are held out.
        """
        episodes = range(self._first_held_out)
        if not episodes:
            raise ConfigError(
                f"held_out={self.held_out:g} leaves nothing of {self.path} to profile on ({self.total} {self.unit} in "
                "all): use a smaller share, or profile on another recording"
            )
        return episodes

    @property
    def judged(self) -> range:
        """Episodes that are held out.

        Raises:
            ConfigError: none are.
        """
        episodes = range(self._first_held_out, self.total)
        if not episodes:
            raise ConfigError(
                f"held_out={self.held_out:g} holds nothing of {self.path} out to judge on: use a share such as 0.2"
            )
        return episodes

    @property
    def _first_held_out(self) -> int:
        if self.held_out in (0, 1):
            return 0 if self.held_out else self.total
        if self.total < 2:
            raise ConfigError(
                f"{self.path} has one of its {self.unit} only, which cannot be profiled and judged on: record several, "
                "or use another recording for each (held_out=0 to profile all of one, held_out=1 to judge on all)"
            )
        return self.total - min(max(1, round(self.total * self.held_out)), self.total - 1)

    @property
    def path(self) -> str:
        return str(self.observed.recording.path)

    @property
    def notes(self) -> list[str]:
        """What was made of the file's numbers, in words; complete once they were read."""
        return self.observed.notes

    @property
    def profiled_kind(self) -> str:
        """What the source of a profile on `profiled` is called, see `bac.profile_source`."""
        return recording_kind(self.digest, self.profiled)

    def describe(self, episodes: range) -> str:
        """Where observations in these episodes come from."""
        return describe_recording(self.observed.recording.path.name, self.digest, episodes, self.total, self.unit)

    def sample(self, episodes: range, wanted: int) -> tuple[Observation, int]:
        """Observations [N, To, ...] by name, spread evenly over these episodes.

        Returns:
            At most `wanted` of them, and how many there are.

        Raises:
            DatasetError: they are damaged.
        """
        ends = self.observed.ends(episodes)
        chosen = np.linspace(0, len(ends) - 1, min(wanted, len(ends))).round().astype(int)
        return self.observed.read(ends[chosen]), len(ends)


def open_recordings(settings: PolicySettings, policy: Any) -> Recordings | None:
    """The recording that `observations` names, None where it names none.

    Raises:
        DatasetError: it is not there, damaged, or not of what the policy sees.
    """
    if getattr(settings, "observations", None) is None:
        return None
    recording = open_recording(settings.observations)
    observed = RecordedObservations(
        recording, policy.obs_shapes, policy.cameras, policy.n_obs_steps, settings.observations_map
    )
    return Recordings(observed, fingerprint(recording), settings.held_out)
