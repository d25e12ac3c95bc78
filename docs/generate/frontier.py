"""The tables of the fastest methods, over several noise seeds, each with its verdict against the full policy."""

from __future__ import annotations

import json
from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES, label, split_key
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.tables import (
    STAGES_TITLE,
    estimate,
    frontier_conditions,
    frontier_table,
    levers_table,
    margin_of,
    stages_table,
)
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


def certificates() -> str:
    """A row for each bundled policy with a certificate: the setting, its proof on fresh seeds, and its time."""
    columns = ["task", "proven setting", "difference to full [95 %]", "pairs", "ms per chunk"]
    columns += ["faster than the plain policy", "than the full one, compiled"]
    rows = []
    for results in stored():
        found = certificate(results.task)
        if found is None or found["claim"] is None:
            continue
        claim, key = found["claim"], tuned_key(results.task)
        timed = None if results.benchmark is None else results.benchmark.row(key, "compiled")
        rows.append(
            [
                results.title,
                label(*split_key(found["method"])) + besides(found["statement"]),
                estimate(claim["difference"], [claim["low"], claim["high"]], 3, sign=True),
                str(claim["n"]),
                *(
                    ["-"] * 3
                    if timed is None
                    else [
                        f"{timed['ms_p50']:.1f}",
                        f"{timed['speedup']:.0f}x",
                        f"{results.benchmark.speedup(key, 'compiled'):.1f}x",
                    ]
                ),
            ]
        )
    return markdown((columns, rows)).strip()


def besides(statement: str) -> str:
    """What a certificate says besides its claim, such as ' (22 % more steps to success)'; mostly nothing."""
    _, _, words = statement.partition("; ")
    return f" ({words})" if words else ""


def margin_of_all() -> float:
    """The margin of every stored verdict.

    Raises:
        ValueError: the tasks have different ones.
    """
    (margin,) = {margin_of(results) for results in stored()}
    return margin


def stored() -> list[TaskResults]:
    """The tasks that have a frontier, in the order of the tables."""
    return [read_frontier(task) for task in TITLES]


def section(task: str) -> list[str]:
    """Tables and conditions of a task's page."""
    results = read_frontier(task)
    parts = [
        markdown(frontier_table(results, tuned_key(task))).strip(),
        frontier_conditions(results),
        *filter(None, [proven(task)]),
    ]
    if (shares := stages_table(results)) is not None:
        parts += [f"{STAGES_TITLE}:", markdown(shares).strip()]
    if results.benchmark is not None:
        parts += [
            "What makes it fast, each factor apart (one interleaved run):",
            markdown(levers_table(results.benchmark)).strip(),
        ]
    return parts
