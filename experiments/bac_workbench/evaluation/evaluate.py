"""One evaluation: roll a policy out with a cache, and write what came of it.

Files in the output folder, each complete or absent: `settings.json` (what this evaluation is), `episodes.jsonl` (a line
per finished episode, appended as it finishes), `eval_results.json`, `benchmark_results.json`, `schedule.json`,
`schedule.png`, `media/*.mp4`. An interrupted evaluation goes on from `episodes.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bac.acceleration import accelerate
from bac.denoiser import model_blocks
from bac.figures import plot_schedule
from bac.flops import denoiser_cost
from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.caching.schedules import cache_label, check_cache, schedule_for
from bac_workbench.evaluation.acting import acting
from bac_workbench.evaluation.folder import EPISODES, evaluation_settings, resume
from bac_workbench.evaluation.statistics import rate_interval, score_interval
from bac_workbench.provenance import environment
from bac_workbench.setup.experiment import Experiment
from bac_workbench.timing.latency import interleaved, speed_ratio
from diffusion_policy.common.config import to_plain
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, append_episode, missing_episodes
from diffusion_policy.env_runner.rollout import RolloutStats, rollout

PLAIN = "plain policy"  # full, the checkpoint's own sampler, reference runtime: what a user has without this project
SPEEDUPS = {
    "speedup": "wall-clock at batch 1 against the plain policy: full, the checkpoint's own sampler, runtime reference",
    "speedup_same_runtime": "wall-clock at batch 1 against the full policy with the checkpoint's own sampler in the same runtime and precision",
}


@dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation, as stored."""

    results: dict[str, Any]
    benchmark: dict[str, Any] | None
    episodes: list[EpisodeResult]
    output_dir: Path


def evaluate(
    experiment: Experiment, output_dir: Path, say: Callable[[str], None] = print, on_episode=None
) -> Evaluation:
    """Runs what is missing of the evaluation that `experiment.cfg` describes and writes all its files.

    Raises:
        LockedError: another process writes to `output_dir`.
    """
    check_cache(experiment.cfg.cache, model_blocks(experiment.policy.model), experiment.base.num_inference_steps)
    with locked(output_dir, f"evaluation of {experiment.cfg.task.name}, {cache_label(experiment.cfg.cache)}"):
        return _evaluate(experiment, output_dir, say, on_episode)


def _evaluate(experiment: Experiment, output_dir: Path, say: Callable[[str], None], on_episode) -> Evaluation:
    cfg, policy = experiment.cfg, experiment.policy
    schedule = schedule_for(experiment, cfg.cache, say)
    shown = schedule or Schedule.full(model_blocks(policy.model), experiment.base.num_inference_steps)
    episodes = experiment.task.episodes()
    settings = evaluation_settings(experiment, shown, episodes)
    settings, done = resume(output_dir, settings, episodes, bool(cfg.overwrite), say)
    if done:
        say(f"{len(done)} of {len(episodes)} episodes are already in {output_dir / 'episodes.jsonl'}")
        if settings["earlier_n_envs"]:
            say(
                f"eval.n_envs={settings['n_envs']} now, {settings['earlier_n_envs']} before: with another batch size the "
                "policy rounds differently, so the remaining episodes can differ from those of an uninterrupted evaluation"
            )
        for result in done if on_episode else ():
            on_episode(result)
    if schedule is not None:
        schedule.save(output_dir / "schedule.json")
        plot_schedule(schedule, output_dir / "schedule.png")

    stats = RolloutStats()
    todo = missing_episodes(episodes, done)
    if todo:
        fresh, stats = roll_out(experiment, schedule, todo, episodes, output_dir, on_episode)
        done = sorted([*done, *fresh], key=lambda result: result.index)
    benchmark = measure_latency(experiment, schedule) if int(cfg.benchmark.n_chunks) > 0 else None
    results = summarise(experiment, shown, settings, done, stats, benchmark)
    if benchmark is not None:
        write_json(output_dir / "benchmark_results.json", {**benchmark, "provenance": results["provenance"]})
    write_json(output_dir / "eval_results.json", results)
    return Evaluation(results, benchmark, done, output_dir)


def roll_out(
    experiment: Experiment,
    schedule: Schedule | None,
    todo: list[Episode],
    episodes: list[Episode],
    output_dir: Path,
    on_episode,
) -> tuple[list[EpisodeResult], RolloutStats]:
    """Rolls out `todo`; rows are written as episodes finish."""
    cfg, policy = experiment.cfg, experiment.policy
    tests = [episode.index for episode in episodes if episode.split == "test"] or [
        episode.index for episode in episodes
    ]

    def finished(result: EpisodeResult) -> None:
        append_episode(output_dir / EPISODES, result)
        if on_episode is not None:
            on_episode(result)

    with (
        accelerate(policy, schedule, cfg.runtime, cfg.precision) as fast,
        experiment.task.vector_env(int(cfg.eval.n_envs), cfg.eval.n_workers) as env,
    ):
        return rollout(
            acting(fast.predict_action, int(cfg.seed)),
            env,
            todo,
            on_episode=finished,
            media_dir=output_dir / "media",
            video_indices=set(tests[: int(cfg.eval.n_videos)]),
        )


def measure_latency(experiment: Experiment, schedule: Schedule | None, runtime: str | None = None) -> dict[str, Any]:
    """Batch-1 latency of this method in its runtime (or in `runtime`), against the plain policy and against the full policy in the same runtime.

    All in one interleaved run. `speedup` is against the plain policy, `speedup_same_runtime` against the full policy with
    the checkpoint's own sampler in the method's own runtime and precision, so that what a runtime gains is not taken for
    what a schedule gains.
    """
    cfg, policy, name = experiment.cfg, experiment.policy, cache_label(experiment.cfg.cache)
    runtime = cfg.runtime if runtime is None else runtime
    plain, full, method = (PLAIN, "reference"), ("full policy", runtime), (name, runtime)
    samplers = {
        plain: make_sampler(experiment.own, None, "reference"),
        full: make_sampler(experiment.own, None, runtime, cfg.precision),
        method: make_sampler(experiment.base, schedule, runtime, cfg.precision),
    }
    latencies, _ = interleaved(policy, samplers, 1, int(cfg.benchmark.n_chunks), int(cfg.benchmark.warmup))
    own = experiment.own_sampler
    return {
        "batch": 1,
        "method": {
            "name": name,
            "sampler": experiment.sampler,
            "runtime": runtime,
            "precision": cfg.precision,
            **latencies[method].to_dict(),
        },
        "plain_policy": {
            "name": "full",
            "sampler": own,
            "runtime": "reference",
            "precision": "fp32",
            **latencies[plain].to_dict(),
        },
        "full_same_runtime": {
            "name": "full",
            "sampler": own,
            "runtime": runtime,
            "precision": cfg.precision,
            **latencies[full].to_dict(),
        },
        "speedup": round(speed_ratio(latencies[plain], latencies[method]), 3),
        "speedup_same_runtime": round(speed_ratio(latencies[full], latencies[method]), 3),
        "kinds": SPEEDUPS,
    }


def summarise(
    experiment: Experiment,
    schedule: Schedule,
    settings: dict[str, Any],
    episodes: list[EpisodeResult],
    stats: RolloutStats,
    benchmark: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of eval_results.json."""
    cost = denoiser_cost(experiment.policy.model)
    full, plain = (
        Schedule.full(schedule.blocks, steps) for steps in (schedule.steps, experiment.own.num_inference_steps)
    )
    flops, full_flops, plain_flops = cost.flops(schedule), cost.flops(full), cost.flops(plain)
    results: dict[str, Any] = {
        "task": settings["task"],
        "method": settings["cache"],
        "sampler": settings["sampler"],
        "checkpoint_sampler": settings["checkpoint_sampler"],
        "runtime": settings["runtime"],
    }
    for split in ("test", "train"):
        rows = [row for row in episodes if row.split == split]
        if not rows:
            continue
        prefix = "" if split == "test" else "train_"
        score, success = score_interval([row.score for row in rows]), rate_interval([row.success for row in rows])
        results[f"{prefix}mean_score"] = score.mean
        results[f"{prefix}mean_score_interval_95"] = [score.low, score.high]
        results[f"{prefix}success_rate"] = success.mean
        results[f"{prefix}success_rate_interval_95"] = [success.low, success.high]
        results[f"{prefix}n_episodes"] = len(rows)
        names = sorted({name for row in rows for name in row.metrics})
        for name in names:
            estimate = score_interval([row.metrics[name] for row in rows])
            results.setdefault(f"{prefix}metrics", {})[name] = {
                "mean": estimate.mean,
                "interval_95": [estimate.low, estimate.high],
            }
    results.update(
        episodes=[
            {"seed": row.seed, "split": row.split, "score": row.score, "metrics": row.metrics} for row in episodes
        ],
        # plain: the full policy with the checkpoint's own sampler; full: the full policy with this sampler
        flops={
            "gflop_per_chunk": flops / 1e9,
            "plain_gflop_per_chunk": plain_flops / 1e9,
            "full_gflop_per_chunk": full_flops / 1e9,
            "ratio_plain_to_method": plain_flops / flops,
            "ratio_full_to_method": full_flops / flops,
        },
        block_updates={"per_chunk": schedule.update_count, "full": full.update_count, "plain": plain.update_count},
        **{name: None if benchmark is None else benchmark[name] for name in SPEEDUPS},
        speedup_kinds=SPEEDUPS,
        frequency=None
        if benchmark is None
        else {key: benchmark["method"][key] for key in ("chunks_per_s", "action_hz")},
        rollout={**stats.to_dict(), "n_envs": settings["n_envs"]},
        provenance={
            **settings,
            "checkpoint": str(experiment.loaded.source),
            "checkpoint_format": experiment.loaded.format,
            "train_steps": experiment.loaded.step,
            "sampler_settings": to_plain(experiment.cfg.sampler),
            "schedule": schedule.provenance.to_dict(),
            "test_seeds_from": experiment.task.seeds.test_start_seed,
            "train_seeds_from": experiment.task.seeds.train_start_seed,
            "notes": experiment.notes,
            **environment(experiment.device, torch.get_num_threads()),
        },
    )
    return results
