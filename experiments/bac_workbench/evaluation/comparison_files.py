"""The files of a comparison: comparison.{json,md,tex,csv}, episodes.csv and, where a world went on, latency.png."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bac_workbench.evaluation.comparison_tables import (
    STAGES_TITLE,
    Lines,
    latex,
    lines_of,
    machine_notes,
    markdown,
    overview,
    overview_lines,
    stage_lines,
)
from bac_workbench.evaluation.latency_picture import LATENCY, plot_latency
from bac_workbench.settings.clock import STOPPED
from bac_workbench.setup.clock import clock_label
from diffusion_policy.common.files import atomic_path, write_json

if TYPE_CHECKING:
    from bac_workbench.evaluation.comparison import Comparison

JSON, MARKDOWN, LATEX, CSV, EPISODES = (
    "comparison.json",
    "comparison.md",
    "comparison.tex",
    "comparison.csv",
    "episodes.csv",
)


def write_comparison(folder: Path, comparison: Comparison) -> list[str]:
    """Writes the files of one task.

    Returns:
        Their names.
    """
    write_json(folder / JSON, {"margin": comparison.margin, **stored(comparison)})
    return write_texts(folder, {"": comparison}, {})


def write_overview(folder: Path, tasks: Mapping[str, Comparison], skipped: Mapping[str, str]) -> list[str]:
    """Writes the files of several tasks.

    Args:
        skipped: folder of evaluations -> why it is not among them.

    Returns:
        The names of the files.
    """
    content = {
        "margin": next(iter(tasks.values())).margin,
        "overview": overview({name: comparison.rows for name, comparison in tasks.items()}),
        "tasks": {name: stored(comparison) for name, comparison in tasks.items()},
        "skipped": dict(skipped),
    }
    write_json(folder / JSON, content)
    return write_texts(folder, tasks, skipped)


def stored(comparison: Comparison) -> dict[str, Any]:
    return {"reference": comparison.facts, "rows": comparison.rows, "skipped": comparison.skipped}


def write_texts(folder: Path, tasks: Mapping[str, Comparison], skipped: Mapping[str, str]) -> list[str]:
    """All but comparison.json; the only task of a folder may have the name ''."""
    tables: list[tuple[str, Lines, list[str]]] = []
    if "" not in tasks:
        rows = {name: comparison.rows for name, comparison in tasks.items()}
        left_out = [f"left out: {name}: {reason}" for name, reason in skipped.items()]
        tables.append(("paired difference to full [95 %], and verdict", overview_lines(rows), left_out))
    for name, item in tasks.items():
        left_out = [f"left out: {run}: {reason}" for run, reason in item.skipped.items()]
        tables.append((name, lines_of(item.rows, item.margin), [*machine_notes(item.rows), *left_out]))
        if (shares := stage_lines(item.rows)) is not None:
            tables.append((": ".join(filter(None, (name, STAGES_TITLE))), shares, []))
    write_text(folder / MARKDOWN, "\n".join(markdown_section(*item) for item in tables))
    write_text(folder / LATEX, "% \\usepackage{booktabs}\n" + "\n".join(latex_section(*item) for item in tables))
    write_csv(folder / CSV, [numbers(name, item, row) for name, item in tasks.items() for row in item.rows])
    write_csv(folder / EPISODES, [episode for item in tasks.values() for episode in item.episodes])
    names = [JSON, MARKDOWN, LATEX, CSV, EPISODES]
    for name, item in tasks.items():
        if any(row["clock"] != STOPPED for row in item.rows):
            names.append(f"latency_{name.replace('/', '_')}.png" if name else LATENCY)
            plot_latency(item.rows, item.reference_clock, folder / names[-1])
    return names


def markdown_section(title: str, lines: Lines, notes: list[str]) -> str:
    """A heading if there is a title, a table, and a list of notes if there are any."""
    listed = "\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else ""
    return (f"## {title}\n\n" if title else "") + markdown(lines) + listed


def latex_section(title: str, lines: Lines, notes: list[str]) -> str:
    """A comment with the title, a tabular, and comments with the notes."""
    named = [f"% {line}" for line in " ".join(title.split()).splitlines()]
    said = [f"% {' '.join(note.split())}" for note in notes]
    return "\n".join([*named, latex(lines).rstrip("\n"), *said, ""])


def numbers(name: str, comparison: Comparison, row: dict[str, Any]) -> dict[str, Any]:
    """A row of comparison.csv: plain numbers, empty where there is none."""
    difference = row["paired_difference"] or {}
    verdict, timing, mcnemar = row["noninferiority"] or {}, row["timing"] or {}, row["mcnemar"] or {}
    success = row["success_rate"] or {"mean": None, "interval_95": [None, None]}
    return {
        "task": comparison.facts["task"],
        **({"folder": name} if name else {}),
        "method": row["label"],
        "cache": row["method"],
        "sampler": row["sampler"],
        "runtime": row["runtime"],
        "precision": row["precision"],
        "weights": comparison.facts["weights"],
        "clock": clock_label(row["clock"]) or STOPPED,
        "checkpoint_hashes": joined(row["checkpoint_hashes"]),
        "runs": joined(row["runs"]),
        "noise_seeds": joined(row["noise_seeds"]),
        "trainings": joined(row["trainings"]),
        "episodes": row["n_episodes"],
        **interval("mean_score", row["mean_score"], row["interval_95"]),
        **interval("success_rate", success["mean"], success["interval_95"]),
        "full_mean_score": row["reference_mean_score"],
        **interval("difference", difference.get("mean"), (difference.get("low"), difference.get("high"))),
        "environment_seeds": difference.get("n"),
        **dict(zip(("bootstrap_low", "bootstrap_high"), row["bootstrap_interval_95"] or (None, None))),
        "gained": mcnemar.get("gained"),
        "lost": mcnemar.get("lost"),
        "mcnemar_p": mcnemar.get("p_value"),
        "margin": comparison.margin,
        "verdict": verdict.get("result"),
        "verdict_p": verdict.get("p_value"),
        "pairs_needed": verdict.get("pairs_needed"),
        "control_steps": row["env_steps"],
        "full_control_steps": row["reference_env_steps"],
        "block_updates": row["block_updates"],
        "gflop_per_chunk": row["gflop_per_chunk"],
        **{key: timing.get(key) for key in ("ms_p50", "ms_p95", "speedup", "speedup_same_runtime", "machine")},
        **{f"metric_{metric}": estimate["mean"] for metric, estimate in sorted(row["metrics"].items())},
    }


def interval(name: str, mean: float | None, bounds: Sequence[float | None]) -> dict[str, float | None]:
    return {name: mean, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}


def joined(values: Sequence[Any]) -> str:
    return ";".join(map(str, values))


def write_csv(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """One line per record, under the names that any of them has; what a record lacks is empty."""
    names = list(dict.fromkeys(name for record in records for name in record))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
