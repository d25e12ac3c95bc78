"""Evaluations as `bac eval` stores them, with scores that a test plants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

MACHINE = "a processor, 1 thread"


def stored(folder, name, method, scores, gflop, sampler="ddpm100", updates=2400, full=2400, first=100, **provenance):
    """Writes <folder>/<name>/eval_results.json.

    Args:
        first: the environment's seed of the first score.
        provenance: other entries of it; `metrics` go elsewhere, and for each score `successes` and control `steps`.

    Returns:
        The file.
    """
    (folder / name).mkdir(parents=True)
    mean = sum(scores) / len(scores)
    metrics = provenance.pop("metrics", {})
    successes, steps = (provenance.pop(key, None) for key in ("successes", "steps"))
    episodes = [{"seed": first + i, "split": "test", "score": score} for i, score in enumerate(scores)]
    for index, episode in enumerate(episodes):
        episode |= {} if successes is None else {"success": bool(successes[index])}
        episode |= {} if steps is None else {"env_steps": steps[index]}
    path = folder / name / "eval_results.json"
    path.write_text(
        json.dumps(
            {
                "method": method,
                "sampler": sampler,
                "mean_score": mean,
                "mean_score_interval_95": [mean - 0.1, mean + 0.1],
                "n_episodes": len(scores),
                "episodes": episodes,
                "metrics": metrics,
                "block_updates": {"per_chunk": updates, "full": full},
                "flops": {"gflop_per_chunk": gflop},
                "provenance": {
                    "task": "t",
                    "checkpoint_hash": "a",
                    "seed": 0,
                    "weights": "ema",
                    "test_seeds_from": 100000,
                    "commit": "c",
                    "hardware": "h",
                    "sampler": sampler,
                    "checkpoint_sampler": "ddpm100",
                    "checkpoint_noise": "n",
                    "sampler_steps": 100,
                    "n_blocks": 24,
                    "precision": "fp32",
                    "n_action_steps": 8,
                    "n_latency_steps": 0,
                    "max_steps": 300,
                    "adapter": {},
                    "runtime": "planned",
                    **provenance,
                },
            }
        )
    )
    return path


def timed(path: Path, ms: float, speedup: float, machine: str = MACHINE, **provenance) -> Path:
    """Writes the benchmark_results.json beside an evaluation."""
    own = {**json.loads(path.read_text())["provenance"], "hardware": machine, **provenance}
    times = {"ms_p50": ms, "ms_p95": 1.5 * ms}
    content = {"method": times, "speedup": speedup, "speedup_same_runtime": speedup / 2, "provenance": own}
    target = path.with_name("benchmark_results.json")
    target.write_text(json.dumps(content))
    return target


def draws(seed: int, n: int, rate: float) -> list[float]:
    """Successes, 0 or 1, that are drawn with a known rate."""
    return (np.random.default_rng(seed).random(n) < rate).astype(float).tolist()
