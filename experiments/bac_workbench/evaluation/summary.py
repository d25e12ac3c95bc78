"""What one evaluation came to: the content of eval_results.json."""

from __future__ import annotations

from typing import Any

import torch

from bac.flops import denoiser_cost
from bac.horizon import Tokens
from bac.schedule import Schedule
from bac_workbench.evaluation.statistics import Estimate, rate_interval, score_interval
from bac_workbench.provenance import environment
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.env_runner.episodes import EpisodeResult
from diffusion_policy.env_runner.rollout import RolloutStats

#: full, the checkpoint's own sampler, all tokens, reference runtime: what a user has without this project
PLAIN = "plain policy"
SPEEDUPS = {
    "speedup": "wall-clock at batch 1 against the plain policy: full, the checkpoint's own sampler, all tokens, "
    "runtime reference",
    "speedup_same_runtime": "wall-clock at batch 1 against the full policy with the checkpoint's own sampler "
    "in the same runtime and precision, with the same tokens",
}


def summarise(
    experiment: Experiment,
    schedule: Schedule,
    settings: dict[str, Any],
    episodes: list[EpisodeResult],
    stats: RolloutStats,
    benchmark: dict[str, Any] | None,
) -> dict[str, Any]:
    """All numbers with their intervals, and what they were made with.

    Args:
        schedule: what was computed, for the full policy every block at every step.
        settings: see `folder.evaluation_settings`.
        benchmark: see `evaluate.measure_latency`; None: nothing was timed.
    """
    own_steps, tokens = experiment.own_sampler.num_inference_steps, experiment.tokens
    results: dict[str, Any] = {
        "task": settings["task"],
        "method": settings["cache"],
        "sampler": settings["sampler"],
        "checkpoint_sampler": settings["checkpoint_sampler"],
        "runtime": settings["runtime"],
        "clock": settings["clock"],
        "tokens": tokens.denoised,
        "trajectory_tokens": tokens.total,
        **scores([episode for episode in episodes if episode.split == "test"], ""),
        **scores([episode for episode in episodes if episode.split == "train"], "train_"),
        "episodes": [
            {
                "seed": episode.seed,
                "split": episode.split,
                "score": episode.score,
                "env_steps": episode.env_steps,
                "metrics": episode.metrics,
            }
            for episode in episodes
        ],
        **arithmetic(experiment.policy.model, schedule, own_steps, tokens),
        **{name: None if benchmark is None else benchmark[name] for name in (*SPEEDUPS, "levers")},
        "speedup_kinds": SPEEDUPS,
        "frequency": None,
        "rollout": {**stats.to_dict(), "n_envs": settings["n_envs"]},
        "provenance": {
            **settings,
            # Not one of the settings that tell evaluations apart: the actions are the same.
            "horizon": experiment.settings.chosen_horizon,
            "tokens": str(tokens),
            "checkpoint": str(experiment.loaded.source),
            "checkpoint_format": experiment.loaded.format,
            "train_steps": experiment.loaded.step,
            "sampler_settings": dict(experiment.sampler_settings),
            "schedule": schedule.provenance.to_dict(),
            "test_seeds_from": experiment.task.seeds.test_start_seed,
            "train_seeds_from": experiment.task.seeds.train_start_seed,
            "notes": experiment.notes,
            **environment(experiment.device, torch.get_num_threads()),
        },
    }
    if benchmark is not None:
        results["frequency"] = {key: benchmark["method"][key] for key in ("chunks_per_s", "action_hz")}
    return results


def scores(episodes: list[EpisodeResult], prefix: str) -> dict[str, Any]:
    """Score, success rate and the task's other numbers over the episodes of one split; empty if there are none."""
    if not episodes:
        return {}
    score = score_interval([episode.score for episode in episodes])
    success = rate_interval([episode.success for episode in episodes])
    results: dict[str, Any] = {
        f"{prefix}mean_score": score.mean,
        f"{prefix}mean_score_interval_95": [score.low, score.high],
        f"{prefix}success_rate": success.mean,
        f"{prefix}success_rate_interval_95": [success.low, success.high],
        f"{prefix}n_episodes": len(episodes),
    }
    names = sorted({name for episode in episodes for name in episode.metrics})
    if names:
        results[f"{prefix}metrics"] = {
            name: stored_estimate(score_interval([episode.metrics[name] for episode in episodes])) for name in names
        }
    return results


def stored_estimate(estimate: Estimate) -> dict[str, Any]:
    return {"mean": estimate.mean, "interval_95": [estimate.low, estimate.high]}


def arithmetic(model: torch.nn.Module, schedule: Schedule, own_steps: int, tokens: Tokens) -> dict[str, Any]:
    """FLOPs and block updates of a chunk, beside those of two full policies.

    `plain` is the full policy with the checkpoint's own sampler, of `own_steps` denoising steps, on all tokens; `full`
    is the full policy with the sampler of the schedule on the tokens that the method denoises.
    """
    cost, plain_cost = denoiser_cost(model, tokens.denoised), denoiser_cost(model, tokens.total)
    full, plain = (Schedule.full(schedule.blocks, steps) for steps in (schedule.steps, own_steps))
    flops, full_flops, plain_flops = cost.flops(schedule), cost.flops(full), plain_cost.flops(plain)
    return {
        "flops": {
            "gflop_per_chunk": flops / 1e9,
            "plain_gflop_per_chunk": plain_flops / 1e9,
            "full_gflop_per_chunk": full_flops / 1e9,
            "ratio_plain_to_method": plain_flops / flops,
            "ratio_full_to_method": full_flops / flops,
        },
        "block_updates": {
            "per_chunk": schedule.update_count,
            "full": full.update_count,
            "plain": plain.update_count,
        },
    }
