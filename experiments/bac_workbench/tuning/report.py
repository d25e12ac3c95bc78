"""A tuning as tables: on the console, and as tuned.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from bac.tuned import Tuned
from bac_workbench.console import table

COLUMNS = [
    "candidate",
    "ms/chunk",
    "speedup",
    "rel. energy",
    "difference to full [95 %]",
    "pairs",
    "steps",
    "jitter",
    "outcome",
]
SCREEN_COLUMNS = ["candidate", "ms/chunk", "speedup", "rel. energy", "MMD²", "median error", "jitter", "outcome"]


def tuned_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    return table(title, COLUMNS, [cells(row) for row in rows])


def cells(row: Mapping[str, Any]) -> list[str]:
    """One line; see `certificate.rows_of`."""
    times, distances, behaviour = row["times"], row["distances"], row["behaviour"] or {}
    difference, pairs = difference_of(row)
    return [
        row["candidate"],
        "-" if times is None else f"{times['ms_p50']:.1f}",
        "-" if times is None else f"{times['speedup']:.1f}x",
        "-" if distances is None else f"{distances['relative_energy']['value']:.3f}",
        difference,
        pairs,
        _ratio(behaviour.get("steps")),
        _ratio(behaviour.get("jitter")),
        outcome(row),
    ]


def difference_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """The paired difference with its interval where there was a proof, and on how many pairs."""
    if row["proof"] is not None:
        difference = row["proof"]["looks"][-1]["difference"]
        low, high = difference["low"], difference["high"]
        return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]", str(difference["n"])
    if row["selection"] is not None:
        return f"{row['selection']['difference']:+.3f}", f"{row['selection']['n']} (selection)"
    return "-", "-"


def outcome(row: Mapping[str, Any]) -> str:
    parts = [row["stage"]] if row["stage"] in ("chosen", "full policy") else [f"{row['stage']}: {row['why']}"]
    if row["meets_target"] is False:
        parts.append("misses the target rate")
    marks = (row["behaviour"] or {}).get("marks", [])
    return "; ".join([*parts, *marks])


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    return "-" if ratio is None else f"{100 * (ratio['value'] - 1):+.0f} %"


def screen_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    return table(title, SCREEN_COLUMNS, [screen_cells(row) for row in rows])


def screen_cells(row: Mapping[str, Any]) -> list[str]:
    times, distances = row["times"], row["distances"]
    numbers = ("relative_energy", "mmd2", "median_error", "jitter_ratio")
    return [
        row["candidate"],
        "-" if times is None else f"{times['ms_p50']:.1f}",
        "-" if times is None else f"{times['speedup']:.1f}x",
        *(("-" if distances is None else f"{distances[name]['value']:.3f}") for name in numbers),
        screen_outcome(row),
    ]


def screen_outcome(row: Mapping[str, Any]) -> str:
    """A screen chooses nothing, so that the full policy is what all are compared with."""
    if row["stage"] == "chosen":
        return "full policy"
    return "goes on" if row["stage"] == "screen" and not row["why"] else outcome(row)


def verdict_lines(tuned: Tuned) -> list[str]:
    """What came of it, in sentences."""
    details = tuned.details
    lines = [f"chosen: {tuned}"]
    times = next(row["times"] for row in details["candidates"] if row["candidate"] == tuned.method)
    lines.append(
        f"runtime {tuned.runtime}, {tuned.precision}, {details['tokens']} of {details['trajectory_tokens']} tokens: "
        f"{times['ms_p50']:.1f} ms per chunk, {times['action_hz']:.0f} actions per second, "
        f"{times['speedup']:.1f}x faster than the full policy in the same runtime"
    )
    if (undecided := details["undecided"]) is not None:
        needed = undecided["pairs_needed"]
        more = f"{needed} pairs may decide" if needed else "how many would decide cannot be said"
        lines.append(f"not proven: nearest came {undecided['candidate']} with {undecided['n']} pairs; {more}")
    if details["meets_target"] is not None:
        meets = "meets" if details["meets_target"] else "misses"
        lines.append(f"it {meets} the target of {details['target_hz']:g} actions per second")
    return lines


def markdown(tuned: Tuned) -> str:
    """tuned.md: the verdict, and every candidate with the stage in which it ended."""
    details = tuned.details
    rows = [COLUMNS, ["---"] + ["---:"] * (len(COLUMNS) - 2) + ["---"], *map(cells, details["candidates"])]
    grid = "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows)
    seeds = details["seeds"]
    note = (
        f"Times at batch 1 on {details['hardware']}. Selection on seeds from {seeds['selection_from']}, proof on seeds "
        f"from {seeds['certification_from']}, noise seed {seeds['noise']}. Screened on {details['states']}. "
        "Steps and jitter are those of the candidate over those of the full policy on the same episodes."
    )
    verdict = "\n".join(f"- {line}" for line in verdict_lines(tuned))
    parts = [f"# {details['task']}, tuned", verdict, "![score against time](tuned.png)", grid, note]
    return "\n\n".join(parts) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
