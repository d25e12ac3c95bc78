"""The result files of the released project, from an evaluation of this one.

eval_results.json       mean_score, speedup, flops, frequency as numbers; this project's beside them
benchmark_results.json  seconds of a chunk and actions per second, of the plain policy and of the method
fast_eval_log.json      test/mean_score, test/p1 ..., and the score of each episode
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.evaluate import Evaluation
from bac_workbench.evaluation.folder import SETTINGS
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json

RESULTS, BENCHMARK, LOG = "eval_results.json", "benchmark_results.json", "fast_eval_log.json"
#: of this project's results, what stands beside the released scalars
BESIDE = (
    "task",
    "method",
    "sampler",
    "runtime",
    "success_rate",
    "success_rate_interval_95",
    "mean_score_interval_95",
    "n_episodes",
    "metrics",
    "speedup_same_runtime",
    "block_updates",
)


def check_output(folder: Path) -> None:
    """Raises ConfigError where `bac eval` wrote its own files, which have the same names."""
    if (folder / SETTINGS).exists():
        raise ConfigError(f"-o {folder} holds an evaluation of bac eval, whose files have these names: choose another")


def write_results(folder: Path, evaluation: Evaluation, experiment: Experiment, mode: Mapping[str, Any]) -> None:
    """Writes the three files; `eval_results.json` last.

    Args:
        mode: the caching mode with its settings, as flags name them.
    """
    results, benchmark = evaluation.results, evaluation.benchmark
    flops = results["flops"]["gflop_per_chunk"] * 1e9
    write_json(folder / LOG, episode_log(results))
    if benchmark is not None:
        actions = experiment.task.chunking.n_action_steps
        timed = {
            "device": str(experiment.device),
            **mode,
            "actions_per_inference": actions,
            "original": seconds(benchmark["plain_policy"]),
            "fast": seconds(benchmark["method"]),
            "speedup": results["speedup"],
            "flops": flops,
            "config": experiment.loaded.config,
            "details": f"{evaluation.output_dir.name}/{BENCHMARK}",
        }
        write_json(folder / BENCHMARK, timed)
    scalars = {
        "mean_score": results["mean_score"],
        "speedup": results["speedup"],
        "flops": flops,
        "frequency": None if results["frequency"] is None else results["frequency"]["action_hz"],
        "cache_mode": mode["mode"],
        "num_caches": mode.get("num_caches"),
        "num_bu_blocks": mode.get("num_bu_blocks", 0),
    }
    beside = {name: results[name] for name in BESIDE if name in results}
    origin = {"weights": experiment.loaded.weights, "checkpoint_hash": experiment.loaded.hash}
    details = f"{evaluation.output_dir.name}/{RESULTS}"
    write_json(folder / RESULTS, {**scalars, **beside, **origin, "details": details})


def seconds(entry: Mapping[str, Any]) -> dict[str, float]:
    """Median seconds of a chunk at batch 1, and actions per second."""
    return {"avg_time": entry["ms_p50"] / 1e3, "frequency": entry["action_hz"]}


def episode_log(results: Mapping[str, Any]) -> dict[str, float]:
    """The log of an evaluation, with the released names: Block Pushing's metrics are p1, p2, the kitchen's p_1 ..."""
    log = {"test/mean_score": results["mean_score"]}
    kitchen = str(results["task"]).startswith("kitchen")
    for name, estimate in results.get("metrics", {}).items():
        numbered = kitchen and name[:1] == "p" and name[1:].isdecimal()
        log[f"test/p_{name[1:]}" if numbered else f"test/{name}"] = estimate["mean"]
    for episode in results["episodes"]:
        log[f"{episode['split']}/sim_max_reward_{episode['seed']}"] = episode["score"]
    return log
