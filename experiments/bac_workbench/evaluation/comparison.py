"""Evaluations of one task side by side, each paired with the full policy on the same episodes and noise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bac_workbench.console import table
from bac_workbench.evaluation.report import interval_text, method_label
from bac_workbench.evaluation.statistics import paired_difference, score_interval
from bac_workbench.evaluation.stored_results import StoredEvaluation, read_evaluation
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json

COLUMNS = (
    "method",
    "mean score [95 %]",
    "paired difference to full [95 %]",
    "episodes",
    "block updates",
    "GFLOP/chunk",
)
STAGES = re.compile(r"p\d+$")  # metrics of the multi-stage tasks: at least so many stages were completed
#: what two evaluations must share for their episodes to be pairs; their runtime may differ, which gives the same
#: actions to rounding
SAME = (
    "task",
    "checkpoint_hash",
    "weights",
    "checkpoint_sampler",
    "checkpoint_noise",
    "seed",
    "test_seeds_from",
    "precision",
    "n_action_steps",
    "n_latency_steps",
    "max_steps",
    "adapter",
)


@dataclass(frozen=True)
class Comparison:
    """Rows in the order shown, the run they are paired with, and the runs that were left out with the reason."""

    rows: list[dict[str, Any]]
    reference: str
    skipped: dict[str, str]


def compare(folder: Path, reference: str | None = None) -> Comparison:
    """Reads every `*/eval_results.json` in `folder`, pairs them with the full policy and writes comparison.{json,md}.

    Args:
        reference: the run (a folder's name) to pair with; None: the only one of the full policy.

    Raises:
        ConfigError: a file is damaged; or there is no run of the full policy with the checkpoint's own sampler, or
            there are several.
    """
    evaluations = [read_evaluation(path) for path in sorted(folder.glob("*/eval_results.json"))]
    chosen = choose_reference(folder, evaluations, reference)
    rows, skipped = [], {}
    for evaluation in evaluations:
        reason = why_not(evaluation, chosen)
        if reason is None:
            rows.append(make_row(evaluation, chosen))
        else:
            skipped[evaluation.run] = reason
    rows.sort(key=lambda row: -row["gflop_per_chunk"])
    facts = {key: chosen.provenance.get(key) for key in (*SAME, "runtime", "commit", "hardware")}
    write_json(
        folder / "comparison.json", {"reference": {"run": chosen.run, **facts}, "rows": rows, "skipped": skipped}
    )
    with atomic_path(folder / "comparison.md") as path:
        path.write_text(markdown(rows))
    return Comparison(rows, chosen.run, skipped)


def choose_reference(folder: Path, evaluations: list[StoredEvaluation], name: str | None) -> StoredEvaluation:
    """The run to pair with: it has to BE the full policy, every block at every step of the checkpoint's own sampler."""
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
        return named[0]
    full = [e for e in evaluations if e.why_not_full() is None]
    if not full:
        raise ConfigError(
            f"{folder} holds no evaluation of the full policy with the checkpoint's own sampler: "
            f"run bac eval with cache=full first. It holds: {runs}"
        )
    if len(full) > 1:
        differs = "; ".join(
            f"{e.run}: "
            + ", ".join(f"{key} {e.provenance[key]}" for key in ("checkpoint_hash", "weights", "seed", "runtime"))
            for e in full
        )
        raise ConfigError(
            f"{folder} holds {len(full)} evaluations of the full policy ({differs}). Name the one to pair with: "
            f"bac compare {folder} {full[0].run}"
        )
    return full[0]


def why_not(evaluation: StoredEvaluation, reference: StoredEvaluation) -> str | None:
    """Why an evaluation cannot be paired with the reference, None if it can."""
    if evaluation.incomplete:
        return evaluation.incomplete
    differs = [
        f"{key} {_short(evaluation.provenance[key])} instead of {_short(reference.provenance[key])}"
        for key in SAME
        if evaluation.provenance[key] != reference.provenance[key]
    ]
    if differs:
        return "; ".join(differs)
    return None if evaluation.scores.keys() & reference.scores.keys() else "no test episode in common"


def make_row(evaluation: StoredEvaluation, reference: StoredEvaluation) -> dict[str, Any]:
    """Means are over the episodes shared with the reference, also the reference's beside them."""
    seeds = sorted(evaluation.scores.keys() & reference.scores.keys())
    own, base = ([item.scores[seed] for seed in seeds] for item in (evaluation, reference))
    mean = score_interval(own)
    difference = paired_difference(own, base).to_dict() if evaluation is not reference and len(seeds) > 1 else None
    return {
        "run": evaluation.run,
        "method": evaluation.method,
        "sampler": evaluation.sampler,
        "runtime": evaluation.provenance["runtime"],
        "label": method_label(evaluation.method, evaluation.sampler, evaluation.provenance["checkpoint_sampler"])
        + (
            ""
            if evaluation.provenance["runtime"] == reference.provenance["runtime"]
            else f" ({evaluation.provenance['runtime']})"
        ),
        "mean_score": mean.mean,
        "interval_95": [mean.low, mean.high],
        "paired_difference": difference,
        "reference_mean_score": sum(base) / len(base),
        "n_episodes": len(seeds),
        "n_episodes_of_run": len(evaluation.scores),
        "n_episodes_of_reference": len(reference.scores),
        "block_updates": evaluation.updates,
        "gflop_per_chunk": evaluation.gflop,
        "metrics": evaluation.metrics_over(seeds),
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def stages(rows: list[dict[str, Any]]) -> list[str]:
    """The metrics shown beside the score: p1, p2, ... as far as any method gets."""
    reached = {
        name for row in rows for name, estimate in row["metrics"].items() if STAGES.match(name) and estimate["mean"] > 0
    }
    return sorted(reached, key=lambda name: int(name[1:]))


def columns(rows: list[dict[str, Any]]) -> list[str]:
    return [*COLUMNS[:1], *stages(rows), *COLUMNS[1:]]


def cells(row: dict[str, Any], metrics: list[str]) -> list[str]:
    """One line of the table; `metrics`: those shown beside the score."""
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
        *(interval_text(row["metrics"][name]) if name in row["metrics"] else "-" for name in metrics),
        f"{row['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
        paired,
        episodes,
        str(row["block_updates"]),
        f"{row['gflop_per_chunk']:.2f}",
    ]


def comparison_table(rows: list[dict[str, Any]]) -> Table:
    return table("same episodes and noise for every method", columns(rows), [cells(row, stages(rows)) for row in rows])


def markdown(rows: list[dict[str, Any]]) -> str:
    head = columns(rows)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *(cells(row, stages(rows)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
