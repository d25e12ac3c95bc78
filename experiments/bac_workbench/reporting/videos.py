"""Rollout videos of one seed side by side: which there are, and which a page has room for."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bac_workbench.reporting.studies import Method, Study

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Clip:
    """One episode of a method."""

    method: Method
    path: Path

    @property
    def data(self) -> str:
        """As a data: address."""
        return "data:video/mp4;base64," + base64.b64encode(self.path.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class SameSeed:
    """Episodes of one environment seed and noise seed, in the order of the study's methods."""

    study: Study
    name: str
    clips: tuple[Clip, ...]

    @property
    def size(self) -> int:
        """Bytes of the page."""
        return sum(-(-clip.path.stat().st_size // 3) * 4 for clip in self.clips)


def same_seeds(study: Study) -> list[SameSeed]:
    """The test episodes that two or more methods have a video of, with the noise of one run of the full policy."""
    found: dict[str, list[Clip]] = {}
    noise = study.methods[0].row["noise_seeds"][:1] if study.methods and study.methods[0].runs else []
    for method in study.methods:
        if method.runs and method.row["noise_seeds"][:1] == noise:
            for path in sorted((method.runs[0] / "media").glob("test_*.mp4")):
                found.setdefault(path.stem, []).append(Clip(method, path))
    return [SameSeed(study, name, tuple(clips)) for name, clips in sorted(found.items()) if len(clips) > 1]


def with_room(studies: Sequence[Study], megabytes: float) -> tuple[dict[str, list[SameSeed]], dict[str, list[str]]]:
    """What fits: the first seed of each study, then the second of each, and so on; a seed is never divided.

    Args:
        megabytes: of the page, all videos together.

    Returns:
        By the study's key, the chosen seeds, and the names of those that are left out.
    """
    waiting = {study.key: same_seeds(study) for study in studies}
    chosen: dict[str, list[SameSeed]] = {study.key: [] for study in studies}
    left_out: dict[str, list[str]] = {study.key: [] for study in studies}
    room = megabytes * MEGABYTE
    for place in range(max(map(len, waiting.values()), default=0)):
        for key, seeds in waiting.items():
            if place >= len(seeds):
                continue
            if seeds[place].size <= room:
                room -= seeds[place].size
                chosen[key].append(seeds[place])
            else:
                left_out[key].append(seeds[place].name)
    return chosen, left_out
