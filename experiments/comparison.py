"""Evaluations of one task side by side, each paired with the full policy on the same episodes and noise."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rich.table import Table

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json
from experiments.console import table
from experiments.report import interval_text
from experiments.statistics import paired_difference

COLUMNS = ("method", "mean score [95 %]", "paired difference to full [95 %]", "episodes", "block updates", "GFLOP/chunk")
STAGES = re.compile(r"p\d+$")    # metrics of the multi-stage tasks: at least so many stages were completed


def compare(folder: Path) -> list[dict[str, Any]]:
    """Reads every `*/eval_results.json` of one checkpoint, noise seed and set of test seeds below `folder` and writes comparison.{json,md}.

    Raises:
        ConfigError: nothing to compare, or no full DDPM evaluation to pair with.
    """
    evaluations = [json.loads(path.read_text()) for path in sorted(folder.glob("*/eval_results.json"))]
    full = [e for e in evaluations if e["method"] == "full" and e["sampler"] == "ddpm100"]
    if not full:
        raise ConfigError(f"{folder} holds no evaluation of the full policy: run scripts/eval.py with cache=full first")
    reference = full[0]
    same = ("checkpoint_hash", "seed", "weights", "test_seeds_from")
    rows = []
    for e in evaluations:
        if any(e["provenance"][key] != reference["provenance"][key] for key in same):
            continue
        scores, base = (
            {row["seed"]: row["score"] for row in item["episodes"] if row["split"] == "test"} for item in (e, reference)
        )
        seeds = sorted(scores.keys() & base.keys())
        difference = None
        if e is not reference and len(seeds) > 1:
            difference = paired_difference([scores[s] for s in seeds], [base[s] for s in seeds]).to_dict()
        rows.append({
            "method": e["method"], "sampler": e["sampler"], "mean_score": e["mean_score"], "interval_95": e["mean_score_interval_95"],
            "paired_difference": difference, "n_episodes": e["n_episodes"], "block_updates": e["block_updates"]["per_chunk"],
            "gflop_per_chunk": e["flops"]["gflop_per_chunk"], "metrics": e.get("metrics", {}),
        })
    rows.sort(key=lambda row: -row["gflop_per_chunk"])
    write_json(folder / "comparison.json", {"reference": {key: reference["provenance"][key] for key in (*same, "commit", "hardware")}, "rows": rows})
    with atomic_path(folder / "comparison.md") as path:
        path.write_text(markdown(rows))
    return rows


def stages(rows: list[dict[str, Any]]) -> list[str]:
    """The metrics shown beside the score: p1, p2, ... as far as any method gets."""
    reached = {name for row in rows for name, estimate in row["metrics"].items() if STAGES.match(name) and estimate["mean"] > 0}
    return sorted(reached, key=lambda name: int(name[1:]))


def columns(rows: list[dict[str, Any]]) -> list[str]:
    return [*COLUMNS[:1], *stages(rows), *COLUMNS[1:]]


def cells(row: dict[str, Any], shown: list[str]) -> list[str]:
    low, high = row["interval_95"]
    d = row["paired_difference"]
    return [
        row["method"] if row["sampler"] == "ddpm100" else f"{row['method']} {row['sampler']}",
        *(interval_text(row["metrics"][name]) if name in row["metrics"] else "-" for name in shown),
        f"{row['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
        "-" if d is None else f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]",
        str(row["n_episodes"]), str(row["block_updates"]), f"{row['gflop_per_chunk']:.2f}",
    ]


def comparison_table(rows: list[dict[str, Any]]) -> Table:
    return table("same episodes and noise for every method", columns(rows), [cells(row, stages(rows)) for row in rows])


def markdown(rows: list[dict[str, Any]]) -> str:
    head = columns(rows)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *(cells(row, stages(rows)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
