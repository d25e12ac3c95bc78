"""Comparisons as tables: for the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from bac_workbench.console import table
from bac_workbench.evaluation.comparison_rows import MARGIN
from bac_workbench.evaluation.report import interval_text

COLUMNS = (
    "method",
    "mean score [95 %]",
    "paired difference to full [95 %]",
    "not worse by {margin}",
    "episodes",
    "control steps",
    "block updates",
    "GFLOP/chunk",
)
#: shown where a run holds times; the first speed-up is against the plain policy
TIMES = ("ms/chunk", "speed-up", "same runtime")
LETTERS = string.ascii_lowercase
STAGES = re.compile(r"p\d+$")  # metrics of the multi-stage tasks: at least so many stages were completed
STAGES_TITLE = "share of episodes that completed at least so many stages, with its 95 % interval"
SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
#: heading and lines of a table; the first column is left-aligned
Lines = tuple[list[str], list[list[str]]]


def stages(rows: list[dict[str, Any]]) -> list[str]:
    """The metrics shown beside the score: p1, p2, ... as far as any method gets."""
    reached = {
        name for row in rows for name, estimate in row["metrics"].items() if STAGES.match(name) and estimate["mean"] > 0
    }
    return sorted(reached, key=lambda name: int(name[1:]))


def columns(rows: list[dict[str, Any]], margin: float) -> list[str]:
    """Times are shown if any row has them."""
    return [*(column.format(margin=f"{margin:g}") for column in COLUMNS), *(TIMES if machines(rows) else ())]


def machines(rows: list[dict[str, Any]]) -> list[str]:
    """On which the rows' times were measured."""
    return list(dict.fromkeys(row["timing"]["machine"] for row in rows if row["timing"]))


def machine_notes(rows: list[dict[str, Any]]) -> list[str]:
    """Whose times a table shows, and what is missing from them; a letter for each machine where there are several."""
    known = machines(rows)
    notes = [f"times of a chunk at batch 1, wall-clock, on {known[0]}"] if len(known) == 1 else []
    if len(known) > 1:
        letters = "; ".join(f"{letter}: {machine}" for letter, machine in zip(LETTERS, known))
        notes.append(f"times of a chunk at batch 1, wall-clock; not comparable from one machine to another. {letters}")
    for row in rows:
        for run, machine in (row["timing"] or {"other_machines": {}})["other_machines"].items():
            notes.append(f"not in the times of {row['label']}: {run}, timed on {machine}")
    return notes


def times(row: dict[str, Any], known: list[str]) -> list[str]:
    """Milliseconds and speed-ups; with the machine's letter where there are several."""
    if not known:
        return []
    timing = row["timing"]
    if timing is None:
        return ["-"] * len(TIMES)
    letter = f" ({LETTERS[known.index(timing['machine'])]})" if len(known) > 1 else ""
    return [
        f"{timing['ms_p50']:.1f}{letter}",
        f"{timing['speedup']:.2f}x{letter}",
        f"{timing['speedup_same_runtime']:.2f}x{letter}",
    ]


def cells(row: dict[str, Any], known: list[str]) -> list[str]:
    """One line of the table; `known`: the machines of the times."""
    low, high = row["interval_95"]
    episodes = str(row["n_episodes"])
    if row["n_episodes"] < row["n_episodes_of_reference"]:
        episodes += f" of {row['n_episodes_of_reference']}, full {row['reference_mean_score']:.3f} on these"
    return [
        row["label"],
        f"{row['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
        difference_text(row),
        verdict_text(row),
        episodes,
        length(row),
        str(row["block_updates"]),
        f"{row['gflop_per_chunk']:.2f}",
        *times(row, known),
    ]


def difference_text(row: dict[str, Any]) -> str:
    """The paired difference with its interval; '-' where there is none."""
    difference = row["paired_difference"]
    if difference is None:
        return "-"
    return f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def verdict_text(row: dict[str, Any]) -> str:
    """'shown', 'refuted', or 'not shown' with the number of pairs that may decide."""
    found = row["noninferiority"]
    if found is None:
        return "-"
    planned = found["pairs_needed"] if found["result"] == "not shown" else None
    return found["result"] + ("" if planned is None else f" ({planned} pairs may decide)")


def length(row: dict[str, Any]) -> str:
    """Mean control steps of an episode, and by how much they differ from the full policy's on the same episodes.

    A policy that succeeds later is worse, though its score may not say so.
    """
    own, base = row["env_steps"], row["reference_env_steps"]
    if own is None or not base:
        return "-" if own is None else f"{own:.0f}"
    return f"{own:.0f} ({100 * (own / base - 1):+.0f} %)" if row["paired_difference"] is not None else f"{own:.0f}"


def lines_of(rows: list[dict[str, Any]], margin: float = MARGIN) -> Lines:
    """Scores, costs and times of one task."""
    return columns(rows, margin), [cells(row, machines(rows)) for row in rows]


def stage_lines(rows: list[dict[str, Any]]) -> Lines | None:
    """The share of episodes that completed at least so many stages; None for a task without."""
    if not (names := stages(rows)):
        return None
    shown = [
        [row["label"], *(interval_text(row["metrics"][name]) if name in row["metrics"] else "-" for name in names)]
        for row in rows
    ]
    return ["method", *names], shown


def overview(tasks: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Method x task: the paired difference and the verdict.

    Args:
        tasks: the rows of each.

    Returns:
        A record for each method but the full policy that all are paired with: `label`, and `tasks` with the paired
        difference, its 95 % interval, the verdict and the number of episodes in each task that has the method.
    """
    labels = list(dict.fromkeys(row["label"] for rows in tasks.values() for row in rows if row["paired_difference"]))
    found = []
    for label in labels:
        cell = {name: row for name, rows in tasks.items() for row in rows if row["label"] == label}
        found.append(
            {
                "label": label,
                "tasks": {
                    name: {
                        "paired_difference": row["paired_difference"],
                        "verdict": row["noninferiority"] and row["noninferiority"]["result"],
                        "n_episodes": row["n_episodes"],
                    }
                    for name, row in cell.items()
                    if row["paired_difference"]
                },
            }
        )
    return found


def overview_lines(tasks: Mapping[str, list[dict[str, Any]]]) -> Lines:
    """The overview as a table; its first line is the full policy's mean score."""
    full = {name: next(row for row in rows if row["is_reference"]) for name, rows in tasks.items()}
    body = [["full: mean score", *(f"{row['mean_score']:.3f}" for row in full.values())]]
    for method in overview(tasks):
        line = [method["label"]]
        for name in tasks:
            cell = method["tasks"].get(name)
            line.append("-" if cell is None else f"{difference_text(cell)} {cell['verdict'] or ''}".rstrip())
        body.append(line)
    return ["method", *tasks], body


def comparison_tables(rows: list[dict[str, Any]], margin: float = MARGIN, title: str = "") -> list[Table]:
    """The tables of one task for a terminal; `title`: before theirs."""
    tables = [table(f"{title}same episodes and noise for every method", *lines_of(rows, margin))]
    if (shares := stage_lines(rows)) is not None:
        tables.append(table(f"{title}{STAGES_TITLE}", *shares))
    return tables


def markdown(lines: Lines) -> str:
    """A table in Markdown."""
    head, body = lines
    rule = ["---"] + ["---:"] * (len(head) - 1)
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (head, rule, *body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in escaped) + "\n"


def latex(lines: Lines) -> str:
    """A tabular in LaTeX, with the rules of the package booktabs."""
    head, body = lines
    rows = [r" & ".join(map(latex_text, line)) + r" \\" for line in (head, *body)]
    parts = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    """Plain text for LaTeX: its special characters are escaped, a minus sign is one."""
    escaped = "".join(SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
