"""Runs of one method that differ in their noise seed or published training alone, as one sample of episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bac_workbench.evaluation.discordance import mcnemar
from bac_workbench.evaluation.statistics import Estimate, bootstrap_interval, clustered_difference, clustered_score
from bac_workbench.evaluation.stored_results import Draw, StoredEvaluation

#: what tells a run from those it is pooled with, and the environment's seed of an episode
Pair = tuple[Draw, int]


@dataclass(frozen=True)
class PooledRuns:
    """Evaluations of one method, one per noise seed and training.

    Episodes of one environment's seed start alike, so they are not independent of each other: intervals take the seeds
    of the environment as clusters.
    """

    runs: tuple[StoredEvaluation, ...]

    @property
    def first(self) -> StoredEvaluation:
        return self.runs[0]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(run.run for run in self.runs)

    @property
    def noise_seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(run.noise_seed for run in self.runs))

    @property
    def trainings(self) -> tuple[int, ...]:
        """The published trainings that the runs name."""
        return tuple(dict.fromkeys(run.train for run in self.runs if run.train is not None))

    @cached_property
    def scores(self) -> dict[Pair, float]:
        return {(run.draw, seed): score for run in self.runs for seed, score in run.scores.items()}

    def shared_with(self, other: PooledRuns) -> list[Pair]:
        """The episodes that both have."""
        return sorted(self.scores.keys() & other.scores.keys())

    def mean(self, pairs: Sequence[Pair]) -> Estimate:
        return clustered_score([self.scores[pair] for pair in pairs], [seed for _, seed in pairs])

    def difference(self, other: PooledRuns, pairs: Sequence[Pair]) -> Estimate:
        """The mean of (this - other) over these episodes."""
        own, base = ([runs.scores[pair] for pair in pairs] for runs in (self, other))
        return clustered_difference(own, base, [seed for _, seed in pairs])

    def bootstrap(self, other: PooledRuns, pairs: Sequence[Pair]) -> list[float] | None:
        """[low, high] of the difference by resampling the environment's seeds, see `bootstrap_interval`."""
        own, base = ([runs.scores[pair] for pair in pairs] for runs in (self, other))
        found = bootstrap_interval(own, base, [seed for _, seed in pairs])
        return None if found is None else list(found)

    @cached_property
    def successes(self) -> dict[Pair, float] | None:
        """1 or 0 by episode; None if they were not recorded."""
        if any(run.successes is None for run in self.runs):
            return None
        return {(run.draw, seed): float(won) for run in self.runs for seed, won in (run.successes or {}).items()}

    def success_rate(self, pairs: Sequence[Pair]) -> dict[str, Any] | None:
        """{"mean", "interval_95"} over these episodes: Wilson's interval where each is of another initial state."""
        if self.successes is None:
            return None
        found = clustered_score([self.successes[pair] for pair in pairs], [seed for _, seed in pairs])
        return {"mean": found.mean, "interval_95": [found.low, found.high]}

    def mcnemar(self, other: PooledRuns, pairs: Sequence[Pair]) -> dict[str, Any] | None:
        """See `discordance.mcnemar`, of successes or, where they were not recorded, of scores that are all 0 or 1."""
        own, base = self.successes, other.successes
        if own is None or base is None:
            own, base = self.scores, other.scores
        values, baseline = ([scores[pair] for pair in pairs] for scores in (own, base))
        if not {*values, *baseline} <= {0.0, 1.0}:
            return None
        return mcnemar(values, baseline, [seed for _, seed in pairs]).to_dict()

    def episodes(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """A record for each of these episodes."""
        by_draw = {run.draw: run for run in self.runs}
        return [
            {
                "run": (run := by_draw[draw]).run,
                "method": run.method,
                "sampler": run.sampler,
                "training": run.train,
                "noise_seed": run.noise_seed,
                "environment_seed": seed,
                "score": run.scores[seed],
                "success": None if run.successes is None else int(run.successes[seed]),
                "control_steps": None if run.env_steps is None else run.env_steps[seed],
            }
            for draw, seed in pairs
        ]

    def mean_env_steps(self, pairs: Sequence[Pair]) -> float | None:
        """Control steps of an episode; None where a run did not record them."""
        if any(run.env_steps is None for run in self.runs):
            return None
        lengths = {(run.draw, seed): n for run in self.runs for seed, n in (run.env_steps or {}).items()}
        return sum(lengths[pair] for pair in pairs) / len(pairs)

    def by_noise_seed(self, pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
        """Noise seed -> environment's seed -> score, of these episodes: what every mean and interval comes from.

        Of a published training the key is such as train1-max-seed0.
        """
        values: dict[str, dict[str, float]] = {}
        for draw, seed in pairs:
            values.setdefault(draw_name(draw), {})[str(seed)] = self.scores[draw, seed]
        return values

    def metrics_over(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """{"mean", "interval_95"} of each metric over these episodes; empty if that is not known."""
        if any(run.metrics is None for run in self.runs):
            alone = len(self.runs) == 1 and len(pairs) == len(self.scores)
            return self.first.means if alone else {}
        rows = {(run.draw, seed): row for run in self.runs for seed, row in (run.metrics or {}).items()}
        names = sorted(set.intersection(*(set(rows[pair]) for pair in pairs)))
        clusters = [seed for _, seed in pairs]
        estimates = {name: clustered_score([rows[pair][name] for pair in pairs], clusters) for name in names}
        return {name: {"mean": item.mean, "interval_95": [item.low, item.high]} for name, item in estimates.items()}


def draw_name(draw: Draw) -> str:
    """'0' of noise seed 0, or 'train1-max-seed0'."""
    train, kind, noise = draw
    return str(noise) if train < 0 else "-".join([f"train{train}", *([kind] if kind else []), f"seed{noise}"])


def pool(evaluations: Sequence[StoredEvaluation]) -> list[PooledRuns]:
    """Groups runs of one method, sampler, schedule, runtime, precision and clock; two of one noise seed and training
    stay apart.

    Runs of one checkpoint that differ in their FLOPs denoised different tokens, and stay apart, too. Every training has
    a schedule of its own: those of one method are pooled, for the same kind of checkpoint.
    """
    groups: dict[tuple, list[list[StoredEvaluation]]] = {}
    for run in sorted(evaluations, key=lambda run: run.draw):
        computed = (run.updates, run.gflop, run.provenance.get("schedule_digest"))
        schedule = computed if run.train is None else run.draw[1]
        how = (run.provenance["runtime"], run.precision, json.dumps(run.clock, sort_keys=True))
        key = (run.method, run.sampler, schedule, *how)
        alike = groups.setdefault(key, [])
        free = [group for group in alike if all(run.draw != other.draw for other in group)]
        if free:
            free[0].append(run)
        else:
            alike.append([run])
    return [PooledRuns(tuple(group)) for alike in groups.values() for group in alike]
