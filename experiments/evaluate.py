"""One evaluation: roll a policy out with a cache, and write what came of it.

Files in the output folder, each complete or absent: `settings.json` (what this evaluation is), `episodes.jsonl` (a line
per finished episode, appended as it finishes), `eval_results.json`, `benchmark_results.json`, `schedule.json`,
`schedule.png`, `media/*.mp4`. An interrupted evaluation goes on from `episodes.jsonl`.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from bac.accelerate import accelerate
from bac.denoiser import model_blocks
from bac.figures import plot_schedule
from bac.flops import denoiser_cost
from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, append_episode, load_episodes, missing_episodes
from diffusion_policy.env_runner.rollout import RolloutStats, rollout
from experiments.acting import acting
from experiments.latency import interleaved, speed_ratio
from experiments.provenance import environment
from experiments.schedules import cache_label, schedule_for
from experiments.setup import Experiment, base_sampler
from experiments.statistics import rate_interval, score_interval

PLAIN = "plain policy"  # full, DDPM with its trained number of steps, reference runtime: what a user has without this project


@dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation, as stored."""

    results: dict[str, Any]
    benchmark: dict[str, Any] | None
    episodes: list[EpisodeResult]
    output_dir: Path


def default_output_dir(cfg: DictConfig) -> Path:
    """results/<task>/<cache>, with suffixes where budget, sampler, runtime precision, weights or noise seed are not the usual."""
    label = cache_label(cfg.cache)
    name = cfg.cache.method if label in (cfg.cache.method, f"{cfg.cache.method}_s10") else label
    for value, usual in ((cfg.sampler.name, "ddpm100"), (cfg.precision, "fp32"), (cfg.weights, "ema"), (f"seed{cfg.seed}", "seed0")):
        name += "" if value == usual else f"-{value}"
    return Path("results") / cfg.task.name / name


def open_output_dir(cfg: DictConfig) -> Path:
    """Creates the output folder, or explains why results cannot be written there."""
    folder = Path(cfg.output_dir) if cfg.output_dir else default_output_dir(cfg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"results cannot be written to {folder} ({error.strerror}): choose another output_dir=") from error
    return folder


def evaluate(experiment: Experiment, output_dir: Path, say: Callable[[str], None] = print, on_episode=None) -> Evaluation:
    """Runs what is missing of the evaluation that `experiment.cfg` describes and writes all its files."""
    cfg, policy = experiment.cfg, experiment.policy
    schedule = schedule_for(experiment, cfg.cache, say)
    shown = schedule or Schedule.full(model_blocks(policy.model), experiment.base.num_inference_steps)
    episodes = experiment.task.episodes()
    settings = evaluation_settings(experiment, shown, episodes)
    settings, done = resume(output_dir, settings, episodes, bool(cfg.overwrite))
    if done:
        say(f"{len(done)} of {len(episodes)} episodes are already in {output_dir / 'episodes.jsonl'}")
        if settings["earlier_n_envs"]:
            say(f"eval.n_envs={settings['n_envs']} now, {settings['earlier_n_envs']} before: with another batch size the "
                "policy rounds differently, so the remaining episodes can differ from those of an uninterrupted evaluation")
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


def evaluation_settings(experiment: Experiment, schedule: Schedule, episodes: list[Episode]) -> dict[str, Any]:
    """Everything that decides the episodes' numbers; a folder holds the results of one such set."""
    cfg = experiment.cfg
    return {
        "task": cfg.task.name, "cache": cache_label(cfg.cache), "schedule_digest": schedule.digest, "sampler": experiment.sampler,
        "checkpoint_hash": experiment.loaded.hash, "weights": experiment.loaded.weights, "runtime": cfg.runtime,
        "precision": cfg.precision, "device": experiment.device.type, "seed": int(cfg.seed), "n_envs": int(cfg.eval.n_envs),
        "max_steps": experiment.task.max_steps, "episodes": len(episodes),
    }


def resume(
    output_dir: Path, settings: dict[str, Any], episodes: list[Episode], overwrite: bool
) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Settings and finished episodes of this very evaluation. Refuses a folder with another one unless `overwrite`.

    The number of environments alone may differ, for it is what one lowers when memory ran out; the settings then name the
    earlier ones, `earlier_n_envs`.
    """
    path, rows = output_dir / "settings.json", output_dir / "episodes.jsonl"
    stored = json.loads(path.read_text()) if path.exists() else {}
    settings = {**settings, "earlier_n_envs": []}
    if overwrite:
        rows.unlink(missing_ok=True)
    elif rows.exists() and rows.stat().st_size:
        changed = [f"{key} {stored.get(key)!r} there, {value!r} now" for key, value in settings.items()
                   if key not in ("n_envs", "earlier_n_envs") and stored.get(key) != value]
        if changed:
            raise ConfigError(
                f"{output_dir} holds another evaluation ({'; '.join(changed) if stored else 'without settings.json'}): "
                "choose another output_dir=, or overwrite=true to start over"
            )
        earlier = [*stored.get("earlier_n_envs", []), stored["n_envs"]]
        settings["earlier_n_envs"] = sorted(set(earlier) - {settings["n_envs"]})
    write_json(path, settings)
    results = load_episodes(rows)
    missing_episodes(episodes, results)  # raises if a row is of another evaluation
    return settings, results


def roll_out(
    experiment: Experiment, schedule: Schedule | None, todo: list[Episode], episodes: list[Episode], output_dir: Path, on_episode
) -> tuple[list[EpisodeResult], RolloutStats]:
    """Rolls out `todo`; rows are written as episodes finish."""
    cfg, policy = experiment.cfg, experiment.policy
    tests = [episode.index for episode in episodes if episode.split == "test"] or [episode.index for episode in episodes]

    def finished(result: EpisodeResult) -> None:
        append_episode(output_dir / "episodes.jsonl", result)
        if on_episode is not None:
            on_episode(result)

    with accelerate(policy, schedule, cfg.runtime, cfg.precision) as fast, \
            experiment.task.vector_env(int(cfg.eval.n_envs), cfg.eval.n_workers) as env:
        return rollout(
            acting(fast.predict_action, int(cfg.seed)), env, todo, on_episode=finished, media_dir=output_dir / "media",
            video_indices=set(tests[: int(cfg.eval.n_videos)]),
        )


def measure_latency(experiment: Experiment, schedule: Schedule | None) -> dict[str, Any]:
    """Batch-1 latency of this method in its runtime against the plain policy, interleaved."""
    cfg, policy = experiment.cfg, experiment.policy
    steps = policy.noise_scheduler.config.num_train_timesteps
    name = cache_label(cfg.cache)
    samplers = {
        PLAIN: make_sampler(base_sampler(policy, "ddpm", steps), None, "reference"),
        name: make_sampler(experiment.base, schedule, cfg.runtime, cfg.precision),
    }
    latencies, actions = interleaved(policy, samplers, 1, int(cfg.benchmark.n_chunks), int(cfg.benchmark.warmup))
    return {
        "batch": 1,
        "method": {"name": name, "runtime": cfg.runtime, **latencies[name].to_dict()},
        "plain_policy": {"name": "full", "runtime": "reference", "sampler": f"ddpm{steps}", **latencies[PLAIN].to_dict()},
        "speedup_vs_plain": round(speed_ratio(latencies[PLAIN], latencies[name]), 3),
    }


def summarise(
    experiment: Experiment, schedule: Schedule, settings: dict[str, Any], episodes: list[EpisodeResult], stats: RolloutStats,
    benchmark: dict[str, Any] | None,
) -> dict[str, Any]:
    """The content of eval_results.json."""
    cost = denoiser_cost(experiment.policy.model)
    full = Schedule.full(schedule.blocks, schedule.steps)
    flops, full_flops = cost.flops(schedule), cost.flops(full)
    results: dict[str, Any] = {"task": settings["task"], "method": settings["cache"], "sampler": settings["sampler"]}
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
            results.setdefault(f"{prefix}metrics", {})[name] = {"mean": estimate.mean, "interval_95": [estimate.low, estimate.high]}
    results.update(
        episodes=[{"seed": row.seed, "split": row.split, "score": row.score} for row in episodes],
        flops={"gflop_per_chunk": flops / 1e9, "full_gflop_per_chunk": full_flops / 1e9, "ratio_full_to_method": full_flops / flops},
        block_updates={"per_chunk": schedule.update_count, "full": full.update_count},
        speedup=None if benchmark is None else {"vs_plain_policy": benchmark["speedup_vs_plain"], "kind": "wall-clock, batch 1, interleaved"},
        frequency=None if benchmark is None else {key: benchmark["method"][key] for key in ("chunks_per_s", "action_hz")},
        rollout={**stats.to_dict(), "n_envs": settings["n_envs"]},
        provenance={
            **settings, "checkpoint": str(experiment.loaded.source), "checkpoint_format": experiment.loaded.format,
            "train_steps": experiment.loaded.step, "schedule": schedule.provenance.to_dict(),
            "test_seeds_from": experiment.task.test_start_seed, "train_seeds_from": experiment.task.train_start_seed,
            "notes": experiment.notes,
            **environment(experiment.device, torch.get_num_threads()),
        },
    )
    return results
