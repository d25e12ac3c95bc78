"""What paired episodes say of a candidate beside its score: how long it takes, and how smoothly it moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bac_workbench.evaluation.statistics import mean_interval
from diffusion_policy.env_runner.episodes import EpisodeResult

#: a candidate is marked where it needs so much more, and the interval of the difference is above zero
NOTABLE = {"steps": 0.05, "jitter": 0.1, "boundary_jump": 0.1}
WORDS = {
    "steps": ("% more steps to success", "% more steps"),
    "jitter": "% more jitter",
    "boundary_jump": "% larger jumps between chunks",
}
FEWEST = 5  # pairs that a ratio is taken of


@dataclass(frozen=True)
class Ratio:
    """Mean of a candidate's numbers over the mean of the full policy's, on the same episodes.

    Attributes:
        low, high: 95 % interval, from that of the paired difference (Student's).
        of_successes: only pairs count in which both succeeded.
    """

    value: float
    low: float
    high: float
    n: int
    of_successes: bool = False

    @property
    def percent(self) -> float:
        return 100 * (self.value - 1)


@dataclass(frozen=True)
class Behaviour:
    """How a candidate behaves beside the full policy; None where too few episodes have the number.

    Attributes:
        steps: environment steps to success, over pairs in which both succeeded; where there are fewer than five of
            them, steps of the whole episode.
    """

    steps: Ratio | None
    jitter: Ratio | None
    boundary_jump: Ratio | None

    @property
    def marks(self) -> list[str]:
        """What to say beside the score, such as '15 % more steps to success'."""
        found = []
        for name, least in NOTABLE.items():
            ratio: Ratio | None = getattr(self, name)
            if ratio is not None and ratio.value > 1 + least and ratio.low > 1:
                words = WORDS[name]
                found.append(
                    f"{ratio.percent:.0f} {words if isinstance(words, str) else words[not ratio.of_successes]}"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "marks": self.marks}


def behaviour(candidate: Sequence[EpisodeResult], full: Sequence[EpisodeResult]) -> Behaviour:
    """From episodes of the same seeds, in the same order.

    Raises:
        ValueError: the seeds differ.
    """
    if [row.seed for row in candidate] != [row.seed for row in full]:
        raise ValueError("behaviour is compared on the same seeds, in the same order")
    pairs = list(zip(candidate, full))
    to_success = _ratio(pairs, lambda row: row.success_step)
    steps = None if to_success is None else Ratio(**{**asdict(to_success), "of_successes": True})
    return Behaviour(
        steps=steps or _ratio(pairs, lambda row: row.env_steps),
        jitter=_ratio(pairs, lambda row: row.jitter),
        boundary_jump=_ratio(pairs, lambda row: row.boundary_jump),
    )


def _ratio(
    pairs: Sequence[tuple[EpisodeResult, EpisodeResult]], number: Callable[[EpisodeResult], float | None]
) -> Ratio | None:
    """Over the pairs of which both episodes have the number."""
    known = [(number(one), number(other)) for one, other in pairs]
    both = np.array([(x, y) for x, y in known if x is not None and y is not None], dtype=float)
    if len(both) < FEWEST or both[:, 1].mean() == 0:
        return None
    base = both[:, 1].mean()
    difference = mean_interval(both[:, 0] - both[:, 1])
    values = (1 + value / base for value in (difference.mean, difference.low, difference.high))
    return Ratio(*(float(value) for value in values), n=len(both))
