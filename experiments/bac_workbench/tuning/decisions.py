"""Who goes on, as pure functions of numbers: nothing here rolls out, measures or draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from bac_workbench.evaluation.paired_tests import PairedTest, gaffke, tango

#: play(name, n) -> scores of a candidate and of the full policy on the first n seeds, paired
Play = Callable[[str, int], tuple[Sequence[float], Sequence[float]]]
#: prepare(names, n): these candidates will be played on the first n seeds, and can be rolled out beside each other
Prepare = Callable[[Sequence[str], int], None]
CLEARLY_FASTER = 0.95  # share of another candidate's time
#: a candidate may go on to the proof if it would pass with at least this probability
WORTH_PROVING = 0.5
REFUTED = 0.05  # one-sided level at which selection gives a candidate up


@dataclass(frozen=True)
class Ended:
    """Where a candidate's way ended, and why, in words."""

    stage: str
    why: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Screened:
    """What the screen decides by: milliseconds of a chunk, and the relative energy distance to the full policy.

    Attributes:
        low, high: interval of the distance over states.
    """

    ms: float
    energy: float
    low: float
    high: float

    def beats(self, other: Screened) -> bool:
        """Clearly, in time and in distance."""
        return self.ms < CLEARLY_FASTER * other.ms and self.high < other.low


def screen_out(rows: Mapping[str, Screened], full_ms: float, max_energy: float, keep: int) -> dict[str, Ended]:
    """The candidates that offline numbers leave behind; all others go on.

    Gone are those further than `max_energy`, and those that another one clearly beats. Of the rest `keep` go on: by
    turns the nearest to the full policy, which is safe, and the one that promises most, which is daring. What it
    promises is log(speedup), less as it is further. How far one is, is the upper end of its interval: of two that look
    alike the one that is known better goes on, such as a sampler that follows the full policy's own noise.

    Args:
        full_ms: milliseconds of the full policy.
    """
    ended: dict[str, Ended] = {}
    for name, row in rows.items():
        if not row.energy <= max_energy:
            ended[name] = Ended("screen", f"relative energy {row.energy:.2f}, above {max_energy:g}")
    left = {name: row for name, row in rows.items() if name not in ended}
    for name, row in left.items():
        better = next((other for other in left if left[other].beats(row)), None)
        if better is not None:
            ended[name] = Ended("screen", f"{better} is faster and nearer to the full policy")
    left = {name: row for name, row in rows.items() if name not in ended}

    def promise(name: str) -> float:
        return math.log(max(full_ms / left[name].ms, 1.0)) * max(0.0, 1 - left[name].high / max_energy)

    rankings = [sorted(left, key=lambda name: left[name].high), sorted(left, key=promise, reverse=True)]
    kept: list[str] = []
    while len(kept) < min(keep, len(left)):
        kept.append(next(name for name in rankings[len(kept) % 2] if name not in kept))
    for name in left:
        if name not in kept:
            ended[name] = Ended("screen", f"others are nearer or promise more: relative energy {left[name].energy:.3f}")
    return ended


@dataclass(frozen=True)
class Standing:
    """Of a candidate after some paired episodes.

    Attributes:
        difference: mean score minus the full policy's.
        n: pairs.
        power: probability that `n_proof` fresh pairs show it not worse by more than the margin.
        refuted: it is worse by more than the margin, as far as selection needs to know.
    """

    difference: float
    n: int
    power: float
    refuted: bool


def standing(own: Sequence[float], full: Sequence[float], margin: float, alpha: float, n_proof: int) -> Standing:
    """From paired scores.

    The p value that `n_proof` pairs like these would give says how far they would be beyond the level, in standard
    errors; what these pairs do not know yet is added as their own standard error.
    """
    differences = np.subtract(own, full).astype(float)
    n, test = len(differences), test_of(own, full)
    p_value = test(differences, -margin, np.full(n, n_proof / n))
    excess = stats.norm.isf(np.clip(p_value, 1e-12, 1 - 1e-12)) - stats.norm.isf(alpha)
    power = float(stats.norm.cdf(excess / math.sqrt(1 + n_proof / n)))
    return Standing(float(differences.mean()), n, power, test(-differences, margin) <= REFUTED)


def test_of(own: Sequence[float], full: Sequence[float]) -> PairedTest:
    """The test that the proof will be made with."""
    return tango if np.isin([own, full], (0.0, 1.0)).all() else gaffke


@dataclass(frozen=True)
class Selection:
    """Outcome of successive halving.

    Attributes:
        survivors: slowest first.
        standings: of each candidate after its last round.
    """

    survivors: list[str]
    standings: dict[str, Standing]
    ended: dict[str, Ended]


def successive_halving(
    times: Mapping[str, float],
    full_ms: float,
    play: Play,
    rounds: Sequence[int],
    margin: float,
    alpha: float,
    n_proof: int,
    keep: int,
    prepare: Prepare = lambda names, n: None,
) -> Selection:
    """Rolls candidates out on more and more seeds and keeps the promising half each time (Karnin et al. 2013).

    A candidate promises `power * log(speedup)`; the safest one always goes on. Those that would rather fail the proof
    are not survivors, nor are those that a faster one equals in its chance of being proven. So the sequence gets faster
    and less safe from one candidate to the next; a mean of few episodes alone would leave out the safe ones.

    Args:
        times: milliseconds of a chunk, by candidate.
        full_ms: that of the full policy, in the same run.
        rounds: numbers of seeds, ascending.
        n_proof: pairs that the proof can have.
        keep: survivors at most.
        prepare: is told what `play` will be asked for in a round.
    """
    left, ended, standings = list(times), {}, {}
    for index, n in enumerate(rounds):
        prepare(left, n)
        for name in left:
            standings[name] = standing(*play(name, n), margin, alpha, n_proof)
        for name in left:
            if standings[name].refuted:
                ended[name] = Ended("selection", f"{_difference(standings[name])}: worse by more than {margin:g}")
        left = [name for name in left if name not in ended]
        if index + 1 < len(rounds):
            kept = _promising(left, standings, times, full_ms, max(keep, math.ceil(len(left) / 2)))
            ended |= {name: _less_promising(standings[name]) for name in left if name not in kept}
            left = kept
    for name in left:
        if standings[name].power < WORTH_PROVING:
            chance = f"it would pass the proof with probability {standings[name].power:.2f}"
            ended[name] = Ended("selection", f"{_difference(standings[name])}: {chance}")
    left = [name for name in left if name not in ended]
    for name in left:
        equals = [
            other for other in left if times[other] < times[name] and standings[other].power >= standings[name].power
        ]
        if equals:
            ended[name] = Ended("selection", f"{_difference(standings[name])}: {equals[0]} is faster and as safe")
    left = [name for name in left if name not in ended]
    kept = _promising(left, standings, times, full_ms, keep)
    ended |= {name: _less_promising(standings[name]) for name in left if name not in kept}
    return Selection(sorted(kept, key=lambda name: (-times[name], name)), standings, ended)


def _promising(
    names: list[str], standings: Mapping[str, Standing], times: Mapping[str, float], full_ms: float, keep: int
) -> list[str]:
    """The `keep` candidates that promise most, in the order given; the safest one among them."""
    safest = max(names, key=lambda name: (standings[name].power, standings[name].difference), default=None)

    def promise(name: str) -> float:
        return standings[name].power * math.log(max(full_ms / times[name], 1.0))

    ranking = sorted(names, key=lambda name: (name != safest, -promise(name), name))
    return [name for name in names if name in ranking[:keep]]


def _difference(state: Standing) -> str:
    return f"{state.difference:+.3f} on {state.n} tuning seeds"


def _less_promising(state: Standing) -> Ended:
    return Ended("selection", f"{_difference(state)}: others promise more")
