"""Table 1 and Table 2 in the paper's shape, with the paper's rows below ours, and a detailed table for every task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bac_workbench.evaluation.comparison import Comparison
from bac_workbench.evaluation.comparison_files import numbers
from bac_workbench.evaluation.comparison_tables import Lines, difference_text, verdict_text
from bac_workbench.reporting.names import FAMILIES, family
from bac_workbench.reproducing.published import HEADINGS, OWN, TABLE_1, TABLE_2, Printed
from bac_workbench.reproducing.rows import ABLATION, KINDS, OWN_CHECKPOINT, Row
from bac_workbench.setup.trainings import BEST, LAST

EMPTY = "-"
SHORT = {"ph": "PH", "mh": "MH", "multi_stage": "multi-stage"}
NOTES = (
    "Scores with their 95 % intervals; of published trainings the best / the last checkpoints, pooled over the "
    "trainings.",
    "FLOPs are those of the denoiser. Speed-ups are wall-clock at batch 1 against the full policy in the same runtime "
    "and on the same tokens, from one interleaved run per task. The paper's are of its own eager runtime, to which "
    "ours of `reference` is nearest.",
    "Lines that begin with 'paper' are printed there. Its fastest Uniform is of another budget than ours.",
)
OWN_NOTE = (
    "These policies are not the paper's, so that none of its success rates compares with these: the paper's lines give "
    "the means of its own tasks."
)


def groups_of(rows: Sequence[Row]) -> list[str]:
    return [name for name in HEADINGS if any(row.group == name for row in rows)]


def ordered(methods: Iterable[str], table: int) -> list[str]:
    """The order of the lines: as in the ablation, or by family and budget."""
    there = set(methods)
    if table == 2:
        return [name for name in ABLATION if name in there]
    families = list(FAMILIES)

    def place(method: str) -> tuple[int, int, str]:
        cache, _, sampler = method.partition("@")
        kind = family(cache, sampler or "own", "own")
        budget = "".join(letter for letter in cache.partition("_s")[2] if letter.isdigit())
        return families.index(kind), int(budget or 0), method

    return sorted(there, key=place)


# ---- the paper's shape ----
def main_table(rows: Sequence[Row], group: str, table: int) -> Lines:
    """Methods by tasks of one group.

    Args:
        rows: of this table and group.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row.scores))
    runtimes = list(dict.fromkeys(name for row in rows for name in row.times))
    head = ["method", *columns, "mean", "GFLOP/chunk", "fewer FLOPs"]
    head += [f"speed-up, {name}" for name in runtimes]
    printed = dict(TABLE_1 if table == 1 else TABLE_2)
    body: list[list[str]] = []
    methods = ordered((row.method for row in rows), table)
    for place, method in enumerate(methods):
        own = [row for row in rows if row.method == method]
        body.append(line_of(own, columns, runtimes))
        after = methods[place + 1] if place + 1 < len(methods) else ""
        for name in list(printed):
            if name == method or method.startswith(f"{name}_s") and not after.startswith(f"{name}_s"):
                body.append(printed_line(printed.pop(name), group, columns, runtimes))
    return head, body


def line_of(rows: Sequence[Row], columns: Sequence[str], runtimes: Sequence[str]) -> list[str]:
    scores = [{**dict.fromkeys(columns), **row.scores} for row in rows]
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    cells = []
    for name in columns:
        values = {row.kind: score[name] for row, score in zip(rows, scores)}
        parts = [score_text(values.get(kind)) for kind in kinds]
        cells.append(EMPTY if set(parts) == {EMPTY} else " / ".join(parts))
    known = [value["mean"] for score in scores for value in score.values() if value is not None]
    partly = "" if EMPTY not in cells else f" ({len(cells) - cells.count(EMPTY)} of {len(cells)})"
    speedups = [mean(row.times[name]["speedup_same_runtime"] for row in rows if name in row.times) for name in runtimes]
    return [
        rows[0].name,
        *cells,
        f"{mean(known):.3f}{partly}",
        f"{mean(row.found['gflop_per_chunk'] for row in rows):.2f}",
        f"{mean(row.flops_ratio for row in rows):.1f}x",
        *(EMPTY if value is None else f"{value:.2f}x" for value in speedups),
    ]


def printed_line(row: Printed, group: str, columns: Sequence[str], runtimes: Sequence[str]) -> list[str]:
    """A line of the paper. For policies that are not the paper's it has the means of the paper's own tasks."""
    cells = [
        " / ".join(f"{value:.2f}" for value in row.scores[name]) if name in row.scores else EMPTY for name in columns
    ]
    ratio = None if row.gflop is None else (TABLE_1["full"].gflop or math.nan) / row.gflop
    speedups = [printed_text(row.speedup, group, "x") if name == "reference" else EMPTY for name in runtimes]
    return [
        f"*paper*: {row.name}",
        *(cells if group != OWN else [EMPTY] * len(columns)),
        printed_text(row.means, group),
        EMPTY if row.gflop is None else f"{row.gflop:.2f}",
        EMPTY if ratio is None else f"{ratio:.1f}x",
        *speedups,
    ]


def printed_text(values: dict[str, float], group: str, unit: str = "") -> str:
    """A number of the paper for a group; all that it has where the group is none of its own."""
    if group != OWN:
        return f"{values[group]:.2f}{unit}" if group in values else EMPTY
    if len(set(values.values())) == 1 and unit:
        return f"{next(iter(values.values())):.2f}{unit}"
    return ", ".join(f"{SHORT[name]} {value:.2f}{unit}" for name, value in values.items()) or EMPTY


def score_text(score: dict[str, Any] | None) -> str:
    if score is None:
        return EMPTY
    low, high = score["interval_95"]
    return f"{score['mean']:.3f} [{low:.3f}, {high:.3f}]"


def mean(values: Iterable[float]) -> Any:
    """None of nothing."""
    known = list(values)
    return math.fsum(known) / len(known) if known else None


# ---- one task ----
def task_table(rows: Sequence[Row], margin: float, table: int) -> Lines:
    """Everything about the methods of one task: scores, paired differences, FLOPs, and wall-clock apart from them."""
    runtimes = list(dict.fromkeys(name for row in rows for name in row.times))
    trained = any(row.kind != OWN_CHECKPOINT for row in rows)
    head = ["method", *(["checkpoint"] if trained else []), "score [95 %]", *(["paper"] if trained else [])]
    head += ["paired difference to full [95 %]", f"not worse by {margin:g}", "episodes", "GFLOP/chunk", "fewer FLOPs"]
    head += [text for name in runtimes for text in (f"ms/chunk, {name}", f"speed-up, {name}")]
    if runtimes:
        head.append(f"{runtimes[-1]} against the plain policy")
    body = []
    for method in ordered((row.method for row in rows), table):
        for row in (row for kind in KINDS for row in rows if row.method == method and row.kind == kind):
            printed = row.printed_score(table)
            found = row.found
            line = [row.name, *([row.kind or "own"] if trained else [])]
            line.append(score_text({"mean": found["mean_score"], "interval_95": found["interval_95"]}))
            line += [EMPTY if printed is None else f"{printed:.2f}"] if trained else []
            line += [difference_text(found), verdict_text(found), str(found["n_episodes"])]
            line += [f"{found['gflop_per_chunk']:.2f}", f"{row.flops_ratio:.1f}x"]
            body.append([*line, *time_cells(row, runtimes)])
    return head, body


def time_cells(row: Row, runtimes: Sequence[str]) -> Iterator[str]:
    for name in runtimes:
        timed = row.times.get(name)
        yield EMPTY if timed is None else f"{timed['ms_p50']:.1f}"
        yield EMPTY if timed is None else f"{timed['speedup_same_runtime']:.2f}x"
    if runtimes:
        last = row.times.get(runtimes[-1])
        yield EMPTY if last is None else f"{last['speedup']:.1f}x"


# ---- plain numbers ----
def record(row: Row, comparison: Comparison, table: int) -> dict[str, Any]:
    """A line of table1.csv: the numbers of `bac compare`, with times and the paper's beside them."""
    printed = row.printed(table)
    score = row.printed_score(table)
    kept = {
        name: value
        for name, value in numbers("", comparison, row.found).items()
        if name not in ("ms_p50", "ms_p95", "speedup", "speedup_same_runtime", "machine")
    }
    times = {
        f"{name}_{runtime}": timed[name]
        for runtime, timed in row.times.items()
        for name in ("ms_p50", "ms_p95", "speedup", "speedup_same_runtime")
    }
    return {
        **kept,
        "checkpoint_type": {BEST: BEST, LAST: LAST}.get(row.kind, "own"),
        "flops_ratio": row.flops_ratio,
        **times,
        "machine": row.machine,
        "paper_row": None if printed is None else printed.name,
        "paper_score": score,
        "paper_mean": None if printed is None else printed.means.get(row.group),
        "paper_gflop_per_chunk": None if printed is None or row.group == OWN else printed.gflop,
        "paper_speedup": None if printed is None else printed.speedup.get(row.group),
    }
