"""One bar for a whole tuning: the stage, how far it is, and an estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from diffusion_policy.env_runner.episodes import EpisodeResult

EVERY_SECONDS = 30.0  # between plain lines, where the output is no terminal


class TuningProgress:
    """Counts what a stage does; episodes that were there already count as done."""

    def __init__(self, bar: Progress):
        self.bar = bar
        self._job = bar.add_task("tuning", total=None)
        self._stage, self._done, self._total = "tuning", 0, 0
        self._scores: dict[str, list[float]] = {}
        self._began = self._said = time.monotonic()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Begins a stage of `total` units; yields what to call after each."""
        self._stage, self._done, self._total, self._scores = name, 0, total, {}
        self._began = time.monotonic()
        self.bar.reset(self._job, description=name, total=total, completed=0)
        yield lambda: self._advance(name)
        self.bar.update(self._job, completed=self._total)

    def episode(self, candidate: str, result: EpisodeResult) -> None:
        """An episode of a candidate has ended."""
        scores = self._scores.setdefault(candidate, [])
        scores.append(result.score)
        self._advance(f"{self._stage}: {candidate} {sum(scores) / len(scores):.3f}")

    def forget(self, units: int) -> None:
        """So many units of the stage are not needed."""
        self._total = max(self._done, self._total - units)
        self.bar.update(self._job, total=self._total)

    def _advance(self, text: str) -> None:
        self._done += 1
        self.bar.update(self._job, description=text, completed=min(self._done, self._total))
        if not self.bar.console.is_terminal and time.monotonic() - self._said > EVERY_SECONDS:
            self._said = time.monotonic()
            left = (self._said - self._began) / self._done * max(0, self._total - self._done) / 60
            self.bar.console.print(f"{text} ({self._done} of at most {self._total}; about {left:.0f} min left of it)")
