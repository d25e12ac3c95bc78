"""Evaluations of one task side by side, each paired with the full policy on the same episodes and noise.

Runs of one method that differ in the noise seed alone are pooled into one row, paired seed by seed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bac_workbench.console import table
from bac_workbench.evaluation.latency_picture import LATENCY, latency, plot_latency
from bac_workbench.evaluation.noninferiority import FEWEST, noninferior
from bac_workbench.evaluation.pooling import Pair, PooledRuns, pool
from bac_workbench.evaluation.references import SAME, choose_references, why_not
from bac_workbench.evaluation.report import interval_text, method_label
from bac_workbench.evaluation.stored_results import read_evaluation
from bac_workbench.setup.clock import clock_label
from diffusion_policy.common.files import atomic_path, write_json

#: what the verdict of a row asks: is the method worse than the full policy by less than this, one-sided at level .05
MARGIN = 0.05
COLUMNS = (
    "method",
    "mean score [95 %]",
    "paired difference to full [95 %]",
    f"not worse by {MARGIN:g}",
    "episodes",
    "control steps",
    "block updates",
    "GFLOP/chunk",
)
STAGES = re.compile(r"p\d+$")  # metrics of the multi-stage tasks: at least so many stages were completed


@dataclass(frozen=True)
class Comparison:
    """Rows in the order shown, the runs they are paired with, and the runs that were left out with the reason.

    `reference_clock`: of the runs they are paired with, '' where the world waits.
    """

    rows: list[dict[str, Any]]
    references: tuple[str, ...]
    skipped: dict[str, str]
    reference_clock: str = ""


def compare(folder: Path, reference: str | None = None) -> Comparison:
    """Reads every `*/eval_results.json` in `folder`, pairs them with the full policy and writes comparison.{json,md}.

    Also latency.png, where a world went on while the policy thought. Such runs are paired with the full policy for
    which the world waits, if it is there; their labels tell the clock.

    Args:
        reference: the run (a folder's name) to pair with; None: the full policy's run of each noise seed.

    Raises:
        ConfigError: a file is damaged; or there is no run of the full policy with the checkpoint's own sampler, or
            there are several of one noise seed.
    """
    evaluations = [read_evaluation(path) for path in sorted(folder.glob("*/eval_results.json"))]
    references = choose_references(folder, evaluations, reference)
    kept, skipped = [], {}
    for evaluation in evaluations:
        reason = why_not(evaluation, references)
        if reason is None:
            kept.append(evaluation)
        else:
            skipped[evaluation.run] = reason
    full = PooledRuns(tuple(references.values()))
    rows = [make_row(runs, full) for runs in pool(kept)]
    rows.sort(key=lambda row: (-row["gflop_per_chunk"], *latency(row)))
    first = full.first
    facts = {key: first.provenance.get(key) for key in (*SAME, "runtime", "commit", "hardware")}
    stored = {"runs": list(full.names), **facts, "clock": first.clock, "seeds": list(full.noise_seeds)}
    write_json(folder / "comparison.json", {"reference": stored, "rows": rows, "skipped": skipped})
    with atomic_path(folder / "comparison.md") as path:
        path.write_text(markdown(rows))
    plot_latency(rows, clock_label(first.clock), folder / LATENCY)
    return Comparison(rows, full.names, skipped, clock_label(first.clock))


def make_row(runs: PooledRuns, full: PooledRuns) -> dict[str, Any]:
    """Means are over the episodes shared with the reference, also the reference's beside them."""
    pairs = runs.shared_with(full)
    first = runs.first
    runtime = first.provenance["runtime"]
    itself = all(run in full.runs for run in runs.runs)
    mean, base = runs.mean(pairs), full.mean(pairs)
    decidable = not itself and len({seed for _, seed in pairs}) >= FEWEST
    sampler = method_label(first.method, first.sampler, first.provenance["checkpoint_sampler"])
    return {
        "run": first.run,
        "runs": list(runs.names),
        "noise_seeds": sorted({noise for (_, _, noise), _ in pairs}),
        "trainings": sorted(runs.trainings),
        "method": first.method,
        "sampler": first.sampler,
        "runtime": runtime,
        "clock": first.clock,
        "label": sampler
        + ("" if runtime == full.first.provenance["runtime"] else f" ({runtime})")
        + trained(runs)
        + (f", {label}" if (label := clock_label(first.clock)) else ""),
        "mean_score": mean.mean,
        "interval_95": [mean.low, mean.high],
        "paired_difference": None if itself or len(pairs) < 2 else runs.difference(full, pairs).to_dict(),
        "noninferiority": verdict(runs, full, pairs) if decidable else None,
        "reference_mean_score": base.mean,
        "n_episodes": len(pairs),
        "n_episodes_of_run": len(runs.scores),
        "n_episodes_of_reference": len(full.scores),
        "env_steps": runs.mean_env_steps(pairs),
        "reference_env_steps": full.mean_env_steps(pairs),
        "block_updates": round(sum(run.updates for run in runs.runs) / len(runs.runs)),
        "gflop_per_chunk": sum(run.gflop for run in runs.runs) / len(runs.runs),
        "metrics": runs.metrics_over(pairs),
        "scores": runs.by_noise_seed(pairs),
    }


def trained(runs: PooledRuns) -> str:
    """' (trainings 0, 1, 2, max)' of runs that name published trainings, else nothing."""
    if not runs.trainings:
        return ""
    kind = runs.first.draw[1]
    return f" (trainings {', '.join(map(str, sorted(runs.trainings)))}{f', {kind}' if kind else ''})"


def verdict(runs: PooledRuns, full: PooledRuns, pairs: list[Pair]) -> dict[str, Any] | None:
    """See `noninferior`; None where scores do not lie in [0, 1], to which a margin of theirs would say nothing."""
    own, base = ({pair: item.scores[pair] for pair in pairs} for item in (runs, full))
    if not all(0 <= score <= 1 for score in (*own.values(), *base.values())):
        return None
    return noninferior(own, base, MARGIN).to_dict()


def stages(rows: list[dict[str, Any]]) -> list[str]:
    """The metrics shown beside the score: p1, p2, ... as far as any method gets."""
    reached = {
        name for row in rows for name, estimate in row["metrics"].items() if STAGES.match(name) and estimate["mean"] > 0
    }
    return sorted(reached, key=lambda name: int(name[1:]))


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    low, high = row["interval_95"]
    difference = row["paired_difference"]
    paired = "-"
    if difference is not None:
        paired = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    episodes = str(row["n_episodes"])
    if row["n_episodes"] < row["n_episodes_of_reference"]:
        episodes += f" of {row['n_episodes_of_reference']}, full {row['reference_mean_score']:.3f} on these"
    return [
        row["label"],
        f"{row['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
        paired,
        verdict_text(row),
        episodes,
        length(row),
        str(row["block_updates"]),
        f"{row['gflop_per_chunk']:.2f}",
    ]


def verdict_text(row: dict[str, Any]) -> str:
    """'shown', 'refuted', or 'not shown' with the number of pairs that may decide."""
    found = row["noninferiority"]
    if found is None:
        return "-"
    planned = found["pairs_needed"] if found["result"] == "not shown" else None
    return found["result"] + ("" if planned is None else f" ({planned} pairs may decide)")


def length(row: dict[str, Any]) -> str:
    """Mean control steps of an episode, and by how much they differ from the full policy's on the same episodes.

    A policy that succeeds later is worse, though its score may not say so.
    """
    own, base = row["env_steps"], row["reference_env_steps"]
    if own is None or not base:
        return "-" if own is None else f"{own:.0f}"
    return f"{own:.0f} ({100 * (own / base - 1):+.0f} %)" if row["paired_difference"] is not None else f"{own:.0f}"


def stage_cells(row: dict[str, Any], names: list[str]) -> list[str]:
    """One line of the table of stages."""
    return [row["label"], *(interval_text(row["metrics"][name]) if name in row["metrics"] else "-" for name in names)]


def comparison_tables(rows: list[dict[str, Any]]) -> list[Table]:
    """Scores and costs; and of a task with stages, the share of episodes that completed at least so many."""
    tables = [table("same episodes and noise for every method", COLUMNS, [cells(row) for row in rows])]
    if names := stages(rows):
        title = "share of episodes that completed at least so many stages, with its 95 % interval"
        tables.append(table(title, ["method", *names], [stage_cells(row, names) for row in rows]))
    return tables


def markdown(rows: list[dict[str, Any]]) -> str:
    names = stages(rows)
    parts = [(COLUMNS, [cells(row) for row in rows])]
    parts += [(("method", *names), [stage_cells(row, names) for row in rows])] if names else []
    return "\n".join(
        "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] + ["---:"] * (len(head) - 1), *lines])
        for head, lines in parts
    )
