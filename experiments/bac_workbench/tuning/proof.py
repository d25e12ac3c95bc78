"""The proof: a fixed sequence of non-inferiority tests on seeds that selection has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bac_workbench.evaluation.noninferiority import Verdict, noninferior
from bac_workbench.evaluation.statistics import Estimate, paired_difference
from bac_workbench.tuning.decisions import Play, Prepare


@dataclass(frozen=True)
class Look:
    """One interim analysis after `n` pairs, at the nominal one-sided level of its verdict.

    Attributes:
        difference: mean score minus the full policy's, with its 95 % interval, which is for people: the verdict comes
            from the test.
    """

    n: int
    verdict: Verdict
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        return {"n": self.n, "verdict": self.verdict.to_dict(), "difference": self.difference.to_dict()}


@dataclass(frozen=True)
class Proof:
    """The test of one candidate: every look up to the one that decided it."""

    name: str
    passed: bool
    looks: tuple[Look, ...]

    @property
    def last(self) -> Look:
        return self.looks[-1]

    def to_dict(self) -> dict[str, Any]:
        return {"candidate": self.name, "passed": self.passed, "looks": [look.to_dict() for look in self.looks]}


def fixed_sequence(
    order: Sequence[str],
    play: Play,
    looks: Sequence[int],
    levels: Sequence[float],
    margin: float,
    on_proof: Callable[[Proof], None] = lambda proof: None,
    prepare: Prepare = lambda names, n: None,
) -> list[Proof]:
    """Tests the candidates one after the other, each at the full level, and stops at the first that fails.

    Whoever is tested after a failure would need a correction for many tests; in a sequence that was fixed beforehand
    none is needed (Maurer, Hothorn and Lehmacher 1995). The order is from slow to fast, safe to daring.

    Args:
        order: the candidates as they were fixed before any of these episodes.
        looks: numbers of pairs, ascending.
        levels: nominal level of each look, which together spend the level of the test.
        on_proof: is called with each outcome.
        prepare: is told what `play` will be asked for at a look.
    """
    proofs: list[Proof] = []
    for name in order:
        proofs.append(prove(name, play, looks, levels, margin, prepare))
        on_proof(proofs[-1])
        if not proofs[-1].passed:
            break
    return proofs


def prove(
    name: str,
    play: Play,
    looks: Sequence[int],
    levels: Sequence[float],
    margin: float,
    prepare: Prepare = lambda names, n: None,
) -> Proof:
    """One group-sequential test: ends as soon as it is shown, or refuted, or there are no more looks.

    To give up early never raises the chance of a false proof.
    """
    done: list[Look] = []
    for n, level in zip(looks, levels, strict=True):
        prepare([name], n)
        own, full = play(name, n)
        verdict = noninferior(_by_pair(own), _by_pair(full), margin, level)
        done.append(Look(n, verdict, paired_difference(own, full)))
        if verdict.result != "not shown":
            break
    return Proof(name, done[-1].verdict.result == "shown", tuple(done))


def _by_pair(scores: Sequence[float]) -> dict[tuple[int, int], float]:
    """By (noise seed, environment seed); both are the same on both sides, and here only told apart."""
    return {(0, index): score for index, score in enumerate(scores)}
