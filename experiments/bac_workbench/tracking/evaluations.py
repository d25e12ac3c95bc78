"""What an evaluation hands on: numbers for the summary, a table of its episodes, pictures and videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion_policy.env_runner.episodes import EpisodeResult

#: columns of the table of episodes, which are fields of `EpisodeResult`; the task's other numbers follow
COLUMNS = (
    "seed",
    "split",
    "score",
    "success",
    "env_steps",
    "success_step",
    "policy_calls",
    "max_reward",
    "truncated",
    "jitter",
    "boundary_jump",
)
EPISODES, VIDEOS, SCHEDULE, SIMILARITY = "episodes", "videos", "schedule", "similarity"


def evaluation_summary(results: Mapping[str, Any], benchmark: Mapping[str, Any] | None) -> dict[str, Any]:
    """One number by name; None where it was not measured.

    Args:
        results, benchmark: as stored in eval_results.json and benchmark_results.json.
    """
    values: dict[str, Any] = {}
    for split in ("", "train_"):
        for name in (f"{split}mean_score", f"{split}success_rate"):
            if name in results:
                low, high = results[f"{name}_interval_95"]
                values |= {name: results[name], f"{name}_low": low, f"{name}_high": high}
        for name, estimate in results.get(f"{split}metrics", {}).items():
            low, high = estimate["interval_95"]
            full = f"{split}metrics/{name}"
            values |= {full: estimate["mean"], f"{full}_low": low, f"{full}_high": high}
        values[f"{split}n_episodes"] = results.get(f"{split}n_episodes")
    flops = results["flops"]
    values |= {
        "gflop_per_chunk": flops["gflop_per_chunk"],
        "flops_ratio": flops["ratio_plain_to_method"],
        "flops_ratio_same_sampler": flops["ratio_full_to_method"],
        "block_updates": results["block_updates"]["per_chunk"],
        "tokens": results["tokens"],
    }
    if benchmark is not None:
        method = benchmark["method"]
        values |= {name: method[name] for name in ("ms_p50", "ms_p95", "chunks_per_s", "action_hz")}
        values |= {name: benchmark[name] for name in ("speedup", "speedup_same_runtime")}
        values |= {f"levers/{name}": factor for name, factor in benchmark["levers"].items()}
    return values


def episode_table(episodes: Sequence[EpisodeResult]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, one for each episode."""
    metrics = sorted({name for episode in episodes for name in episode.metrics})
    rows = [
        [*(getattr(episode, column) for column in COLUMNS), *(episode.metrics.get(name) for name in metrics)]
        for episode in episodes
    ]
    return [*COLUMNS, *metrics], rows


def evaluation_media(
    wandb: ModuleType, episodes: Sequence[EpisodeResult], folder: Path, similarity: Path | None
) -> dict[str, Any]:
    """The table of episodes and what was drawn and filmed.

    Args:
        folder: of the evaluation.
        similarity: picture of the profile that the schedule is made from; None: there is none.
    """
    columns, rows = episode_table(episodes)
    media: dict[str, Any] = {EPISODES: wandb.Table(columns=columns, data=rows)}
    pictures = {SCHEDULE: folder / "schedule.png", SIMILARITY: similarity}
    media |= {key: wandb.Image(str(path)) for key, path in pictures.items() if path is not None and path.is_file()}
    videos = [
        wandb.Video(str(folder / episode.video), caption=f"seed {episode.seed}, score {episode.score:.3f}")
        for episode in episodes
        if episode.video is not None and (folder / episode.video).is_file()
    ]
    return media | ({VIDEOS: videos} if videos else {})
