"""Where the observations of a profile come from, in the words that profiles and schedules store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from diffusers import DDPMScheduler

from bac.sampler_name import noise_digest

PUBLISHED_NOISE = noise_digest(
    DDPMScheduler(num_train_timesteps=100, beta_start=1e-4, beta_end=0.02, beta_schedule="squaredcos_cap_v2")
)
ROLLOUTS = re.compile(r"rollouts of the full policy from seeds (\d+)\.\.(\d+)")
DATASET = re.compile(r"windows of the task's data set")
NOISE = re.compile(r", noise schedule ([0-9a-f]{8})")
ALL_SEEN = ", which is all there were"


@dataclass(frozen=True)
class Source:
    """What the words say, and the words for it.

    Attributes:
        kind: rollouts, dataset, or None where the words are somebody else's.
        seed_start, n_episodes: of the rollouts.
        noise: digest of the noise schedule: that of Diffusion Policy's published configurations unless the words name
            another, for the checkpoint's hash is of the weights alone.
        all_seen: fewer observations were to be had than asked for.
    """

    kind: str | None
    seed_start: int | None = None
    n_episodes: int | None = None
    noise: str = PUBLISHED_NOISE
    all_seen: bool = False

    @classmethod
    def parse(cls, text: str) -> Source:
        noise = NOISE.search(text)
        common = {"noise": noise[1] if noise else PUBLISHED_NOISE, "all_seen": text.endswith(ALL_SEEN)}
        if seeds := ROLLOUTS.match(text):
            first, last = map(int, seeds.groups())
            return cls("rollouts", first, last - first + 1, **common)
        return cls("dataset" if DATASET.match(text) else None, **common)

    @property
    def settings(self) -> dict[str, Any]:
        """By the names of `ProfileSettings`, as far as it is known."""
        values = {"source": self.kind, "seed_start": self.seed_start, "n_episodes": self.n_episodes}
        return {name: value for name, value in values.items() if value is not None}


def describe_rollouts(seed_start: int, n_episodes: int) -> str:
    return f"rollouts of the full policy from seeds {seed_start}..{seed_start + n_episodes - 1}"


def describe_dataset(windows: int) -> str:
    return f"windows of the task's data set, {windows} in all"


def describe(origin: str, noise: str, all_seen: bool) -> str:
    """`origin`, one of the above, with what is unusual; `Source.parse` reads it."""
    return origin + ("" if noise == PUBLISHED_NOISE else f", noise schedule {noise}") + (ALL_SEEN if all_seen else "")
