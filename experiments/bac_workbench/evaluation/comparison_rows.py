"""One row of a comparison: a method's runs beside the full policy's on the same episodes and noise."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bac_workbench.evaluation.noninferiority import FEWEST, noninferior
from bac_workbench.evaluation.pooling import Pair, PooledRuns
from bac_workbench.evaluation.report import method_label
from bac_workbench.evaluation.stored_timings import pooled_timing
from bac_workbench.setup.clock import clock_label

#: what the verdict of a row asks: is the method worse than the full policy by less than this, one-sided at level .05
MARGIN = 0.05


def make_row(runs: PooledRuns, full: PooledRuns, margin: float = MARGIN) -> dict[str, Any]:
    """One method of a comparison, JSON-able.

    Means are over the episodes shared with the reference, also the reference's beside them.
    """
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
        "is_reference": itself,
        "noise_seeds": sorted({noise for (_, _, noise), _ in pairs}),
        "trainings": sorted(runs.trainings),
        "checkpoint_type": first.draw[1] or None,
        "method": first.method,
        "sampler": first.sampler,
        "runtime": runtime,
        "precision": first.precision,
        "clock": first.clock,
        "checkpoint_hashes": sorted({run.provenance["checkpoint_hash"] for run in runs.runs}),
        "label": sampler
        + ("" if runtime == full.first.provenance["runtime"] else f" ({runtime})")
        + ("" if first.precision == full.first.precision else f", {first.precision}")
        + trained(runs)
        + (f", {label}" if (label := clock_label(first.clock)) else ""),
        "mean_score": mean.mean,
        "interval_95": [mean.low, mean.high],
        "paired_difference": None if itself or len(pairs) < 2 else runs.difference(full, pairs).to_dict(),
        "bootstrap_interval_95": None if itself else runs.bootstrap(full, pairs),
        "success_rate": runs.success_rate(pairs),
        "mcnemar": None if itself else runs.mcnemar(full, pairs),
        "noninferiority": verdict(runs, full, pairs, margin) if decidable else None,
        "reference_mean_score": base.mean,
        "n_episodes": len(pairs),
        "n_episodes_of_run": len(runs.scores),
        "n_episodes_of_reference": len(full.scores),
        "env_steps": runs.mean_env_steps(pairs),
        "reference_env_steps": full.mean_env_steps(pairs),
        "block_updates": round(sum(run.updates for run in runs.runs) / len(runs.runs)),
        "gflop_per_chunk": sum(run.gflop for run in runs.runs) / len(runs.runs),
        "timing": pooled_timing([(run.run, run.timing) for run in runs.runs]),
        "metrics": runs.metrics_over(pairs),
        "scores": runs.by_noise_seed(pairs),
    }


def trained(runs: PooledRuns) -> str:
    """' (trainings 0, 1, 2, max)' of runs that name published trainings, else nothing."""
    if not runs.trainings:
        return ""
    kind = runs.first.draw[1]
    return f" (trainings {', '.join(map(str, sorted(runs.trainings)))}{f', {kind}' if kind else ''})"


def verdict(runs: PooledRuns, full: PooledRuns, pairs: list[Pair], margin: float) -> dict[str, Any] | None:
    """See `noninferior`; None where scores do not lie in [0, 1], to which a margin of theirs would say nothing."""
    own, base = ({pair: item.scores[pair] for pair in pairs} for item in (runs, full))
    if not all(0 <= score <= 1 for score in (*own.values(), *base.values())):
        return None
    return noninferior(own, base, margin).to_dict()


def with_unique_labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose labels are alike, such as two schedules of one method, are told apart by a run of theirs."""
    times = Counter(row["label"] for row in rows)
    return [row if times[row["label"]] == 1 else {**row, "label": f"{row['label']} [{row['run']}]"} for row in rows]
