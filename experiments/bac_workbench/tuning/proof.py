"""The proof: a fixed sequence of non-inferiority tests on seeds that selection has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bac_workbench.tuning.decisions import Play

#: test(own, full, margin, alpha) -> verdict of one look
Test = Callable[[Sequence[float], Sequence[float], float, float], Any]


@dataclass(frozen=True)
class Look:
    """One interim analysis: after `n` pairs, at the nominal one-sided level `alpha`."""

    n: int
    alpha: float
    verdict: Any

    def to_dict(self) -> dict[str, Any]:
        return {"n": self.n, "nominal_alpha": self.alpha, **self.verdict.to_dict()}


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
    test: Test,
    on_proof: Callable[[Proof], None] = lambda proof: None,
) -> list[Proof]:
    """Tests the candidates one after the other, each at the full level, and stops at the first that fails.

    Whoever is tested after a failure would need a correction for many tests; in a sequence that was fixed beforehand
    none is needed (Maurer, Hothorn and Lehmacher 1995). The order is from slow to fast, safe to daring.

    Args:
        order: the candidates as they were fixed before any of these episodes.
        looks: numbers of pairs, ascending.
        levels: nominal level of each look, which together spend the level of the test.
        on_proof: is called with each outcome.
    """
    proofs: list[Proof] = []
    for name in order:
        proofs.append(prove(name, play, looks, levels, margin, test))
        on_proof(proofs[-1])
        if not proofs[-1].passed:
            break
    return proofs


def prove(
    name: str, play: Play, looks: Sequence[int], levels: Sequence[float], margin: float, test: Test
) -> Proof:
    """One group-sequential test: ends as soon as it is shown, or refuted, or there are no more looks.

    To give up early never raises the chance of a false proof.
    """
    done: list[Look] = []
    for n, level in zip(looks, levels, strict=True):
        verdict = test(*play(name, n), margin, level)
        done.append(Look(n, level, verdict))
        if verdict.shown or verdict.refuted:
            break
    return Proof(name, bool(done[-1].verdict.shown), tuple(done))
