"""Numbers of a study that several figures share: bars of the ablation and outcomes of pairs of episodes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bac_workbench.reporting.names import FAMILIES
from bac_workbench.reporting.studies import Method, Study

#: what the paper's ablation compares, in its order
ABLATION = ("uniform", "unified_acs", "blockwise_acs", "bac", "sacs")


@dataclass(frozen=True)
class Outcomes:
    """Pairs of episodes, one of the method and one of the full policy with the same state and noise.

    Attributes:
        gained, lost: that the method alone, or the full policy alone, solves.
        p_value: McNemar's exact, two-sided.
    """

    method: Method
    both: int
    gained: int
    lost: int
    neither: int
    p_value: float

    @property
    def matrix(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows: the full policy succeeds, fails. Columns: the method succeeds, fails."""
        return (self.both, self.lost), (self.gained, self.neither)

    @property
    def total(self) -> int:
        return self.both + self.gained + self.lost + self.neither


def outcomes(study: Study) -> list[Outcomes]:
    """Of every method whose row tells successes beside the full policy's."""
    return [found for method in study.methods if (found := outcome(method)) is not None]


def outcome(method: Method) -> Outcomes | None:
    row = method.row
    test = row.get("mcnemar")
    rate = row.get("success_rate") or {"mean": row["mean_score"]}  # without successes the scores are all 0 or 1
    if test is None:
        return None
    n = row["n_episodes"]
    both = round(rate["mean"] * n) - test["gained"]
    return Outcomes(
        method, both, test["gained"], test["lost"], n - both - test["gained"] - test["lost"], test["p_value"]
    )


def ablation(study: Study) -> list[Method]:
    """The caches of `ABLATION` on the checkpoint's own sampler that differ in their budget alone, by budget."""
    plain = [
        method
        for method in study.methods
        if method.family in ABLATION
        and method.own_sampler
        and re.fullmatch(rf"{method.family}(_s\d+)?", method.row["method"])
    ]
    return sorted(plain, key=lambda method: (budget_number(method), ABLATION.index(method.family)))


def budget_number(method: Method) -> int:
    return int(method.budget) if method.budget.isdecimal() else 0


def missing_in_ablation(study: Study) -> list[str]:
    """Names of the ablation's caches that the study does not have."""
    there = {method.family for method in ablation(study)}
    return [name for name in ABLATION if name not in there]


def bar_name(method: Method) -> str:
    """'BAC, 10': the cache and its budget."""
    return FAMILIES[method.family].title + ("" if method.budget == "-" else f", {method.budget}")


def cost_of(method: Method, study: Study) -> float | None:
    """Milliseconds of a chunk where the study has times, else GFLOP; None for a method that was not timed."""
    return method.ms if study.machine else method.row["gflop_per_chunk"]


def cost_title(study: Study) -> str:
    unit = "ms" if study.machine else "GFLOP"
    return f"{unit} per action chunk (log scale; left is cheaper)"
