"""Where the observations of a profile come from, in the words that profiles and schedules store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

ROLLOUTS = re.compile(r"rollouts of the full policy from seeds (\d{1,18})\.\.(\d{1,18})")
DATASET = re.compile(r"windows of the task's data set")
RECORDING = re.compile(r"(?:episodes|windows) (\d{1,18})\.\.(\d{1,18}) of \d{1,18} of recording ([0-9a-f]{8})")
NOISE = re.compile(r", noise schedule ([0-9a-f]{8})")
ALL_SEEN = ", which is all there were"


@dataclass(frozen=True)
class Source:
    """What such words say.

    Attributes:
        kind: rollouts, dataset, what `recording_kind` gives, or None where the words are somebody else's.
        seed_start, n_episodes: of the rollouts.
        noise: digest of the noise schedule (`bac.sampler_name.noise_digest`), which a checkpoint's hash does not cover;
            None: that of Diffusion Policy's published configurations.
        all_seen: fewer observations were to be had than asked for.
        recording, episodes: fingerprint of the recording, and those of its episodes (or windows) that were looked at.
    """

    kind: str | None
    seed_start: int | None = None
    n_episodes: int | None = None
    noise: str | None = None
    all_seen: bool = False
    recording: str | None = None
    episodes: range | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        digest = NOISE.search(text)
        noise, all_seen = None if digest is None else digest[1], text.endswith(ALL_SEEN)
        if seeds := ROLLOUTS.match(text):
            first, last = map(int, seeds.groups())
            return cls("rollouts", first, last - first + 1, noise, all_seen)
        if found := RECORDING.match(text):
            episodes = range(int(found[1]), int(found[2]) + 1)
            kind = recording_kind(found[3], episodes)
            return cls(kind, noise=noise, all_seen=all_seen, recording=found[3], episodes=episodes)
        return cls("dataset" if DATASET.match(text) else None, noise=noise, all_seen=all_seen)

    @property
    def settings(self) -> dict[str, Any]:
        """`seed_start` and `n_episodes`, as far as they are known."""
        values = {"seed_start": self.seed_start, "n_episodes": self.n_episodes}
        return {name: value for name, value in values.items() if value is not None}


def describe_rollouts(seed_start: int, n_episodes: int) -> str:
    """Observations of rollouts with the environment's seeds `seed_start`, `seed_start + 1`, ..."""
    return f"rollouts of the full policy from seeds {seed_start}..{seed_start + n_episodes - 1}"


def describe_dataset(windows: int) -> str:
    """Observations of a data set with so many windows."""
    return f"windows of the task's data set, {windows} in all"


def recording_kind(fingerprint: str, episodes: range) -> str:
    """`Source.kind` of observations in these episodes of a recording."""
    return f"recording-{fingerprint}-{episodes.start}-{episodes.stop - 1}"


def describe_recording(name: str, fingerprint: str, episodes: range, total: int, unit: str = "episodes") -> str:
    """Observations in some of the `total` episodes (or `unit` = windows) of a recording."""
    return f"{unit} {episodes.start}..{episodes.stop - 1} of {total} of recording {fingerprint}, {name}"


def describe(origin: str, noise: str | None, all_seen: bool) -> str:
    """`origin`, one of the above, with what is unusual; `Source.parse` reads it."""
    return origin + ("" if noise is None else f", noise schedule {noise}") + (ALL_SEEN if all_seen else "")
