"""The tables of the fastest methods, over several noise seeds, each with its verdict against the full policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bac_workbench.evaluation.comparison_tables import verdict_text
from docs.generate.stored import (
    OWN_SAMPLER,
    ROOT,
    TITLES,
    TaskResults,
    difference,
    estimate,
    evaluations,
    label,
    read_frontier,
    split_key,
    table,
)

COLUMNS = (
    "method",
    "{score} [95 %]",
    "paired difference to full [95 %]",
    "not worse by {margin}",
    "control steps",
    "evaluations",
    "GFLOP per chunk",
)
#: columns of the overview, from what people do today to what is offered here
OVERVIEW = ("full@ddim16", "bac_s10", "sacs_s10", "full@ancestral5")
NAMES = {
    "full@ddim16": "DDIM-16",
    "bac_s10": "BAC, budget 10",
    "sacs_s10": "S-ACS, BAC's FLOPs",
    "full@ancestral5": "ancestral-5, coupled",
}
TIMED = ("compiled, ms", "speed-up, same runtime and tokens")


def key_of(row: dict[str, Any]) -> str:
    return f"{row['method']}@{row['sampler']}"


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


def name(row: dict[str, Any], task: str) -> str:
    """A method as the table names it; the tuned one is marked."""
    text = label(row["method"], row["sampler"])
    return f"**{text}** (tuned)" if key_of(row) == tuned_key(task) else text


def longer(row: dict[str, Any]) -> str:
    """By how much an episode is longer than the full policy's."""
    if row["env_steps"] is None or not row["reference_env_steps"]:
        return "-"
    change = row["env_steps"] / row["reference_env_steps"] - 1
    return f"{row['env_steps']:.0f}" if row["paired_difference"] is None else f"{100 * change:+.0f} %"


def margin_of(results: TaskResults) -> float:
    """How much worse a method may be, in the verdicts of a task."""
    return next(row["noninferiority"]["margin"] for row in results.rows if row["noninferiority"])


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


def frontier_table(results: TaskResults) -> str:
    """A row per method, in descending order of computation."""
    timed = results.benchmark
    columns = [text.format(score=results.score_name, margin=f"{margin_of(results):g}") for text in COLUMNS]
    rows = []
    for row in sorted(results.rows, key=lambda row: -row["gflop_per_chunk"]):
        cells = [
            name(row, results.task),
            estimate(row["mean_score"], row["interval_95"], 3),
            difference(row),
            verdict_text(row),
            longer(row),
            str(evaluations(row["sampler"])),
            f"{row['gflop_per_chunk']:.2f}",
        ]
        if timed is not None:
            measured = timed.row(key_of(row), "compiled")
            cells += (
                ["-", "-"]
                if measured is None
                else [f"{measured['ms_p50']:.1f}", f"{timed.speedup(key_of(row), 'compiled'):.1f}x"]
            )
        rows.append(cells)
    return table(columns + (list(TIMED) if timed is not None else []), rows)


def conditions(results: TaskResults) -> str:
    """A paragraph below the table: what the numbers were measured on."""
    row = results.rows[0]
    seeds = len(row["noise_seeds"])
    noise = f"noise seeds {', '.join(map(str, row['noise_seeds']))}" if seeds > 1 else "one noise seed"
    text = (
        f"{row['n_episodes']} episodes per method ({row['n_episodes'] // seeds} initial states from seed "
        f"{results.reference['test_seeds_from']}, {noise}), the same for every method; episodes of one initial state "
        "count as one observation. *Not worse by* tests one-sided at level 0.05 whether the mean score is lower than "
        "the full policy's by less than the margin. *Control steps* are an episode's, beside the full policy's. "
        "*Evaluations* are runs of the denoiser per chunk; GFLOP count the tokens that reach the executed actions."
    )
    return text + (times(results) if results.benchmark is not None else "")


def times(results: TaskResults) -> str:
    timed = results.benchmark
    return f" Times: batch 1, {timed.machine}."


def levers_table(results: TaskResults) -> str:
    """What the runtime, the tokens and the steps each make of the plain policy's time."""
    timed = results.benchmark
    plain = timed.plain
    rows = []
    for row in sorted(timed.rows, key=lambda row: -row["ms_p50"]):
        if row["runtime"] != "compiled":
            continue
        levers = row["levers"]
        whole = row["method"] == "full_all_tokens"
        text = "full policy, all tokens" if whole else label(row["method"], row["sampler"])
        rows.append(
            [text, f"{row['ms_p50']:.1f}", f"{plain['ms_p50'] / row['ms_p50']:.0f}x"]
            + [f"{levers[key]:.1f}x" for key in ("runtime", "tokens", "steps_and_schedule")]
        )
    columns = ["method, compiled", "ms per chunk", "faster than the plain policy", "by the runtime", "by the tokens"]
    head = [f"plain policy ({label('full', OWN_SAMPLER)}, module by module)", f"{plain['ms_p50']:.0f}", "1x", *"---"]
    return table([*columns, "by steps and schedule"], [head, *rows])


def overview(title: Callable[[TaskResults], str] = lambda results: results.title) -> str:
    """A row per task: the full policy's score, and how each method differs from it; proven ones are bold.

    Args:
        title: what the first column says of a task.
    """
    columns = ["task", "pairs", label(*split_key("full")), *(NAMES[key] for key in OVERVIEW)]
    rows = []
    for results in stored():
        reference = results.row("full")
        digits = 2 if results.score_name == "success rate" else 3
        first = [title(results), str(reference["n_episodes"]), f"{reference['mean_score']:.{digits}f}"]
        rows.append([*first, *(difference_cell(results.row(key), digits) for key in OVERVIEW)])
    return table(columns, rows)


def difference_cell(row: dict[str, Any], digits: int) -> str:
    text = difference(row, digits)
    return f"**{text}**" if row["noninferiority"]["result"] == "shown" else text


def section(task: str) -> list[str]:
    """Tables and conditions of a task's page; empty where nothing is stored."""
    results = read_frontier(task)
    if results is None:
        return []
    parts = [frontier_table(results), conditions(results), *filter(None, [proven(task)])]
    if results.benchmark is not None:
        parts += ["What makes it fast, each factor apart (one interleaved run):", levers_table(results)]
    return parts
