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
from bac_workbench.evaluation.noninferiority import FEWEST, noninferior
from bac_workbench.evaluation.pooling import Pair, PooledRuns, draw_name, pool
from bac_workbench.evaluation.report import interval_text, method_label
from bac_workbench.evaluation.stored_results import Draw, StoredEvaluation, read_evaluation
from diffusion_policy.common.config import ConfigError
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
#: what two evaluations must share, beside the noise seed, for their episodes to be pairs; their runtime may differ,
#: which gives the same actions to rounding
SAME = (
    "task",
    "checkpoint_hash",
    "weights",
    "checkpoint_sampler",
    "checkpoint_noise",
    "test_seeds_from",
    "precision",
    "n_action_steps",
    "n_latency_steps",
    "max_steps",
    "adapter",
)


@dataclass(frozen=True)
class Comparison:
    """Rows in the order shown, the runs they are paired with, and the runs that were left out with the reason."""

    rows: list[dict[str, Any]]
    references: tuple[str, ...]
    skipped: dict[str, str]


def compare(folder: Path, reference: str | None = None) -> Comparison:
    """Reads every `*/eval_results.json` in `folder`, pairs them with the full policy and writes comparison.{json,md}.

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
    rows.sort(key=lambda row: -row["gflop_per_chunk"])
    first = full.first
    facts = {key: first.provenance.get(key) for key in (*SAME, "runtime", "commit", "hardware")}
    stored = {"runs": list(full.names), **facts, "seeds": list(full.noise_seeds)}
    write_json(folder / "comparison.json", {"reference": stored, "rows": rows, "skipped": skipped})
    with atomic_path(folder / "comparison.md") as path:
        path.write_text(markdown(rows))
    return Comparison(rows, full.names, skipped)


def choose_references(
    folder: Path, evaluations: list[StoredEvaluation], name: str | None
) -> dict[Draw, StoredEvaluation]:
    """Noise seed and training -> the run to pair with.

    It has to BE the full policy, every block at every step of the checkpoint's own sampler.
    """
    runs = "; ".join(
        f"{e.run} ({e.method}, sampler {e.sampler}" + (f": {why}" if (why := e.why_not_full()) else "") + ")"
        for e in evaluations
    )
    if not evaluations:
        raise ConfigError(f"{folder} holds no evaluations (no */eval_results.json): run bac eval with cache=full first")
    if name is not None:
        named = [e for e in evaluations if e.run == name]
        if not named:
            raise ConfigError(f"{folder} holds no run {name}; it holds: {runs}")
        if (why := named[0].why_not_full()) is not None:
            raise ConfigError(
                f"{name} cannot be the reference, as it is not the full policy with the checkpoint's own sampler: {why}"
            )
        return {named[0].draw: named[0]}
    full = [e for e in evaluations if e.why_not_full() is None]
    if not full:
        raise ConfigError(
            f"{folder} holds no evaluation of the full policy with the checkpoint's own sampler: "
            f"run bac eval with cache=full first. It holds: {runs}"
        )
    references = {e.draw: e for e in sorted(full, key=lambda e: e.draw)}
    first = next(iter(references.values()))
    if len(references) < len(full) or any(differences(first, e) for e in full):
        differs = "; ".join(
            f"{e.run}: "
            + ", ".join(f"{key} {e.provenance[key]}" for key in ("checkpoint_hash", "weights", "seed", "runtime"))
            for e in full
        )
        raise ConfigError(
            f"{folder} holds {len(full)} evaluations of the full policy ({differs}). Name the one to pair with: "
            f"bac compare {folder} {full[0].run}"
        )
    return references


def differences(evaluation: StoredEvaluation, reference: StoredEvaluation) -> list[str]:
    """Under which other conditions than `reference` a run was made, but for the noise seed, in words.

    Runs of different published trainings have different checkpoints.
    """
    own, other = evaluation.provenance, reference.provenance
    trained = None not in (evaluation.train, reference.train) and evaluation.draw[:2] != reference.draw[:2]
    keys = [key for key in SAME if own[key] != other[key] and not (trained and key == "checkpoint_hash")]
    return [f"{key} {_short(own[key])} instead of {_short(other[key])}" for key in keys]


def why_not(evaluation: StoredEvaluation, references: dict[Draw, StoredEvaluation]) -> str | None:
    """Why an evaluation cannot be paired with the references, None if it can."""
    if evaluation.incomplete:
        return evaluation.incomplete
    draw = evaluation.draw
    reference = references.get(draw, next(iter(references.values())))
    differs = differences(evaluation, reference)
    if draw not in references:
        differs.append(f"seed {draw_name(draw)} instead of {', '.join(map(draw_name, references))}")
    if differs:
        return "; ".join(differs)
    return None if evaluation.scores.keys() & reference.scores.keys() else "no test episode in common"


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
        "label": sampler + ("" if runtime == full.first.provenance["runtime"] else f" ({runtime})") + trained(runs),
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


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


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
