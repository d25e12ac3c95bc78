"""The claims of BAC's paper as tests of stored results: what each says, on which rows, and when it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bac_workbench.evaluation.statistics import Estimate, clustered_difference
from bac_workbench.reporting.names import split_key
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.tables import estimate

HOLDS, NOT, OPEN, ABSENT = "holds", "**does not hold**", "open", "-"


@dataclass(frozen=True)
class Finding:
    """What a task says of a claim.

    Attributes:
        number: with its interval.
        verdict: one of the words above.
        pairs: of episodes; 0 where nothing is stored.
    """

    number: str
    verdict: str
    pairs: int


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        title: what is claimed.
        paper: its number there.
        measure: what the number of a task is.
        test: of a task's rows.
        command: which makes them again.
    """

    title: str
    paper: str
    measure: str
    test: Callable[[TaskResults], Finding]
    command: str


def has(results: TaskResults, *keys: str) -> bool:
    """Whether all these methods are stored."""
    there = {(row["method"], row["sampler"]) for row in results.rows}
    return all(split_key(key) in there for key in keys)


def paired(results: TaskResults, key: str, other: str) -> Estimate:
    """Mean difference of two methods' scores over the episodes that both have; a state counts once."""
    one, two = results.row(key)["scores"], results.row(other)["scores"]
    own, base, states = [], [], []
    for noise in sorted(set(one) & set(two), key=int):
        for state in sorted(set(one[noise]) & set(two[noise]), key=int):
            own.append(one[noise][state])
            base.append(two[noise][state])
            states.append(int(state))
    return clustered_difference(own, base, states)


def n_pairs(results: TaskResults, key: str, other: str) -> int:
    one, two = results.row(key)["scores"], results.row(other)["scores"]
    return sum(len(set(one[noise]) & set(two[noise])) for noise in set(one) & set(two))


def above(key: str, other: str) -> Callable[[TaskResults], Finding]:
    """`key` scores higher than `other`: the interval of the paired difference decides."""

    def test(results: TaskResults) -> Finding:
        if not has(results, key, other):
            return Finding(ABSENT, ABSENT, 0)
        found = paired(results, key, other)
        verdict = HOLDS if found.low > 0 else NOT if found.high < 0 else OPEN
        number = estimate(found.mean, [found.low, found.high], 3, sign=True)
        return Finding(number, verdict, n_pairs(results, key, other))

    return test


def not_worse(key: str) -> Callable[[TaskResults], Finding]:
    """`key` is worse than the full policy by less than the margin."""
    return _verdict(key, {"shown": HOLDS, "refuted": NOT, "not shown": OPEN})


def worse(key: str) -> Callable[[TaskResults], Finding]:
    """`key` is worse than the full policy by more than the margin."""
    return _verdict(key, {"shown": NOT, "refuted": HOLDS, "not shown": OPEN})


def _verdict(key: str, words: dict[str, str]) -> Callable[[TaskResults], Finding]:
    def test(results: TaskResults) -> Finding:
        if not has(results, key):
            return Finding(ABSENT, ABSENT, 0)
        row = results.row(key)
        found = row["paired_difference"]
        number = estimate(found["mean"], [found["low"], found["high"]], 3, sign=True)
        return Finding(number, words[row["noninferiority"]["result"]], row["n_episodes"])

    return test


def faster(key: str, least: float) -> Callable[[TaskResults], Finding]:
    """`key` is at least so many times faster than the full policy in the same runtime, on the same tokens."""

    def test(results: TaskResults) -> Finding:
        timed = results.benchmark
        if timed is None or timed.row(key, "compiled") is None:
            return Finding(ABSENT, ABSENT, 0)
        ratio = timed.speedup(key, "compiled")
        return Finding(f"{ratio:.1f}x", HOLDS if ratio >= least else NOT, 0)

    return test


TO_FULL, MORE = "paired difference to the full policy", "paired difference"
FRONTIER = "shs/frontier.sh"
SCORED = (
    Claim(
        "BAC at budget 10 loses nothing",
        ".79 against .76 on single-stage tasks, .98 against .98 on multi-stage tasks",
        TO_FULL,
        not_worse("bac_s10"),
        FRONTIER,
    ),
    Claim(
        "Uniform caching at the same budget collapses on hard tasks",
        "Tool Hang .23 against .43 in its best case; ablation mean .65",
        TO_FULL,
        worse("uniform_s10"),
        FRONTIER,
    ),
    Claim(
        "One adaptive schedule for all blocks is better than Uniform",
        "ablation mean .72 against .65",
        MORE,
        above("unified_acs_s10", "uniform_s10"),
        FRONTIER,
    ),
    Claim(
        "Adaptive schedules for each block, without repair, collapse",
        "ablation mean .65, Tool Hang .03",
        TO_FULL,
        worse("blockwise_acs_s10"),
        FRONTIER,
    ),
    Claim(
        "The Bubbling Union repairs them",
        "ablation mean .79 against .65",
        MORE,
        above("bac_s10", "blockwise_acs_s10"),
        FRONTIER,
    ),
    Claim(
        "BAC is better than a sampler with fewer steps of the same cost",
        "DDIM is outside of the paper's tables; later work calls DDIM-30 level with BAC",
        "paired difference to DDIM-16",
        above("bac_s10", "full@ddim16"),
        FRONTIER,
    ),
    Claim(
        "BAC at budget 10 is about 3.4 times faster",
        "3.40x wall-clock, 3.60x on multi-stage tasks",
        "same runtime, same tokens, batch 1, one thread",
        faster("bac_s10", 3.4),
        FRONTIER,
    ),
)
