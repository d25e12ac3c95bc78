"""The tables of the fastest methods, over several noise seeds, each with its verdict against the full policy."""

from __future__ import annotations

import json
from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES, label, split_key
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.tables import estimate, frontier_conditions, frontier_table, levers_table, margin_of
from docs.generate.stored import ROOT, read_frontier


def certificate(task: str) -> dict[str, Any] | None:
    """What `bac tune` found for the bundled policy; None if nothing is stored."""
    path = ROOT / "assets" / task / "tuned.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def tuned_key(task: str) -> str | None:
    """The method that `bac tune` chose for the bundled policy, as rows are looked up; None if none is stored."""
    found = certificate(task)
    return None if found is None else "@".join(split_key(found["method"]))


def proven(task: str) -> str:
    """What the certificate says, and on which seeds; empty where nothing is proven."""
    found = certificate(task)
    if found is None or found["claim"] is None:
        return ""
    claim, seeds = found["claim"], found["details"]["seeds"]
    before = seeds["other_sequences_tested_before"]
    paired = estimate(claim["difference"], [claim["low"], claim["high"]], 3, sign=True)
    return (
        f"`bac tune` proved {label(*split_key(found['method']))}: not worse than the full policy by more than "
        f"{claim['margin']:g}, with a paired difference of {paired} over {claim['n']} initial states from seed "
        f"{seeds['certification_from']}, which nothing else has seen (one-sided p = {claim['p_value']:.4f}; sequences "
        f"tested before on other seeds: {before})."
    )


def margin_of_all() -> float:
    """The margin of every stored verdict.

    Raises:
        ValueError: the tasks have different ones.
    """
    (margin,) = {margin_of(results) for results in stored()}
    return margin


def stored() -> list[TaskResults]:
    """The tasks that have a frontier, in the order of the tables."""
    return [found for found in map(read_frontier, TITLES) if found is not None]


def section(task: str) -> list[str]:
    """Tables and conditions of a task's page; empty where nothing is stored."""
    results = read_frontier(task)
    if results is None:
        return []
    parts = [
        markdown(frontier_table(results, tuned_key(task))).strip(),
        frontier_conditions(results),
        *filter(None, [proven(task)]),
    ]
    if results.benchmark is not None:
        parts += [
            "What makes it fast, each factor apart (one interleaved run):",
            markdown(levers_table(results.benchmark)).strip(),
        ]
    return parts
