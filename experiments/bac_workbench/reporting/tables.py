"""The tables of stored results, as heading and lines: the pages of docs/results and a report show the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bac_workbench.evaluation.comparison_tables import Lines, verdict_text
from bac_workbench.reporting.names import ALL_TOKENS, OWN_SAMPLER, evaluations, label, split_key
from bac_workbench.reporting.stored import Benchmark, TaskResults

FRONTIER_COLUMNS = (
    "method",
    "{score} [95 %]",
    "paired difference to full [95 %]",
    "not worse by {margin}",
    "control steps",
    "evaluations",
    "GFLOP per chunk",
)
#: columns of the overview, from what people do today to what is offered here
OVERVIEW = ("full@ddim16", "bac_s10", "sacs_s10", "full@ancestral5")
OVERVIEW_NAMES = {
    "full@ddim16": "DDIM-16",
    "bac_s10": "BAC, budget 10",
    "sacs_s10": "S-ACS, BAC's FLOPs",
    "full@ancestral5": "ancestral-5, coupled",
}
TIMED = ("compiled, ms", "speed-up, same runtime and tokens")


def key_of(row: dict[str, Any]) -> str:
    """A row's method and sampler, as rows are looked up."""
    return f"{row['method']}@{row['sampler']}"


def by_cost(results: TaskResults) -> list[dict[str, Any]]:
    """The rows in descending order of computation, as every table lists them."""
    return sorted(results.rows, key=lambda row: -row["gflop_per_chunk"])


# ---- cells ----
def estimate(mean: float, interval: list[float], digits: int, sign: bool = False) -> str:
    """'0.962 [0.920, 1.000]'."""
    plus = "+" if sign else ""
    low, high = interval
    return f"{mean:{plus}.{digits}f} [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"


def difference(row: dict[str, Any], digits: int = 3) -> str:
    """A method's paired difference to the full policy, which has none to itself."""
    paired = row["paired_difference"]
    return "-" if paired is None else estimate(paired["mean"], [paired["low"], paired["high"]], digits, sign=True)


def score(results: TaskResults, row: dict[str, Any]) -> str:
    return estimate(row["mean_score"], row["interval_95"], 2 if results.score_name == "success rate" else 3)


def times(timed: Benchmark, key: str) -> list[str]:
    """Milliseconds, speed-up and actions per second of a method; dashes where it was not timed."""
    compiled, reference = timed.row(key, "compiled"), timed.row(key, "reference")
    if compiled is None or reference is None:
        return ["-"] * 4
    return [
        f"{reference['ms_p50']:.1f}",
        f"{compiled['ms_p50']:.1f}",
        f"{timed.speedup(key, 'compiled'):.2f}x",
        f"{compiled['action_hz']:.0f}",
    ]


def longer(row: dict[str, Any]) -> str:
    """By how much an episode is longer than the full policy's."""
    if row["env_steps"] is None or not row["reference_env_steps"]:
        return "-"
    change = row["env_steps"] / row["reference_env_steps"] - 1
    return f"{row['env_steps']:.0f}" if row["paired_difference"] is None else f"{100 * change:+.0f} %"


def both(run: Benchmark, key: str, runtime: str) -> str:
    """Median and 95th percentile, ms."""
    row = run.row(key, runtime)
    return "-" if row is None else f"{row['ms_p50']:.1f} / {row['ms_p95']:.1f}"


# ---- one task ----
def methods_table(results: TaskResults) -> Lines:
    """A row per method, in the order of `by_cost`."""
    columns = ["method", f"{results.score_name} [95 %]", "paired difference to full [95 %]"]
    columns += [f"{stage} [95 %]" for stage in results.stages] + ["block updates", "GFLOP per chunk"]
    timed = results.benchmark
    if timed is not None:
        columns += ["reference, ms", "compiled, ms", "speed-up, compiled", "actions/s, compiled"]
    lines = []
    for row in by_cost(results):
        cells = [label(row["method"], row["sampler"]), score(results, row), difference(row)]
        shares = [row["metrics"][stage] for stage in results.stages]
        cells += [estimate(share["mean"], share["interval_95"], 2) for share in shares]
        cells += [str(row["block_updates"]), f"{row['gflop_per_chunk']:.2f}"]
        lines.append(cells if timed is None else [*cells, *times(timed, key_of(row))])
    return columns, lines


def margin_of(results: TaskResults) -> float:
    """How much worse a method may be, in the verdicts of a task."""
    return next(row["noninferiority"]["margin"] for row in results.rows if row["noninferiority"])


def frontier_table(results: TaskResults, tuned: str | None, tuned_name: str = "**{}** (tuned)") -> Lines:
    """A row per method, in the order of `by_cost`.

    Args:
        tuned: key of the method that `bac tune` chose, None if none is known.
        tuned_name: how its name is written.
    """
    timed = results.benchmark
    columns = [text.format(score=results.score_name, margin=f"{margin_of(results):g}") for text in FRONTIER_COLUMNS]
    lines = []
    for row in by_cost(results):
        name = label(row["method"], row["sampler"])
        cells = [
            tuned_name.format(name) if key_of(row) == tuned else name,
            estimate(row["mean_score"], row["interval_95"], 3),
            difference(row),
            verdict_text(row),
            longer(row),
            str(evaluations(row["sampler"])),
            f"{row['gflop_per_chunk']:.2f}",
        ]
        if timed is not None:
            measured = timed.row(key_of(row), "compiled")
            cells += (
                ["-", "-"]
                if measured is None
                else [f"{measured['ms_p50']:.1f}", f"{timed.speedup(key_of(row), 'compiled'):.1f}x"]
            )
        lines.append(cells)
    return columns + (list(TIMED) if timed is not None else []), lines


STAGES_TITLE = "Share of episodes that completed at least so many stages"


def stages_table(results: TaskResults) -> Lines | None:
    """Metrics p1, p2, ... of a multi-stage task, in the order of `by_cost`; None for one without."""
    if not results.stages:
        return None
    lines = []
    for row in by_cost(results):
        shares = [row["metrics"][stage] for stage in results.stages]
        cells = [estimate(share["mean"], share["interval_95"], 2) for share in shares]
        lines.append([label(row["method"], row["sampler"]), *cells])
    return ["method", *results.stages], lines


def frontier_conditions(results: TaskResults) -> str:
    """A paragraph below the table: what the numbers were measured on."""
    row = results.rows[0]
    seeds = len(row["noise_seeds"])
    noise = f"noise seeds {', '.join(map(str, row['noise_seeds']))}" if seeds > 1 else "one noise seed"
    text = (
        f"{row['n_episodes']} episodes per method ({row['n_episodes'] // seeds} initial states from seed "
        f"{results.reference['test_seeds_from']}, {noise}), the same for every method; episodes of one initial state "
        "count as one observation. *Not worse by* tests one-sided at level 0.05 whether the mean score is lower than "
        "the full policy's by less than the margin. *Control steps* are an episode's, beside the full policy's. "
        "*Evaluations* are runs of the denoiser per chunk; GFLOP count the tokens that reach the executed actions."
    )
    return text + ("" if results.benchmark is None else f" Times: batch 1, {results.benchmark.machine}.")


# ---- times ----
def by_time(timed: Benchmark) -> list[dict[str, Any]]:
    """The rows of the compiled runtime, the slowest first."""
    return [row for row in sorted(timed.rows, key=lambda row: -row["ms_p50"]) if row["runtime"] == "compiled"]


def levers_table(timed: Benchmark) -> Lines:
    """What the runtime, the tokens and the steps each make of the plain policy's time; the plain policy comes first."""
    plain = timed.plain
    lines = []
    for row in by_time(timed):
        levers = row["levers"]
        whole = row["method"] == ALL_TOKENS
        text = "full policy, all tokens" if whole else label(row["method"], row["sampler"])
        lines.append(
            [text, f"{row['ms_p50']:.1f}", f"{plain['ms_p50'] / row['ms_p50']:.0f}x"]
            + [f"{levers[key]:.1f}x" for key in ("runtime", "tokens", "steps_and_schedule")]
        )
    columns = ["method, compiled", "ms per chunk", "faster than the plain policy", "by the runtime", "by the tokens"]
    head = [f"plain policy ({label('full', OWN_SAMPLER)}, module by module)", f"{plain['ms_p50']:.0f}", "1x", *"---"]
    return [*columns, "by steps and schedule"], [head, *lines]


def runtimes_table(run: Benchmark) -> Lines:
    """A row per method, a column per runtime."""
    lines = [
        [label(*split_key(key))]
        + [both(run, key, runtime) for runtime in run.runtimes]
        + [f"{run.speedup(key, 'compiled'):.2f}x"]
        for key in run.keys
    ]
    return ["method", *(f"{name}: ms p50 / p95" for name in run.runtimes), "speed-up, compiled"], lines


# ---- all tasks ----
def overview(
    found: Iterable[TaskResults], title: Callable[[TaskResults], str] = lambda results: results.title
) -> Lines:
    """A row per task: the full policy's score, and how each method of `OVERVIEW` differs from it, bold where proven.

    Args:
        title: what the first column says of a task.
    """
    columns = ["task", "pairs", label(*split_key("full")), *(OVERVIEW_NAMES[key] for key in OVERVIEW)]
    lines = []
    for results in found:
        reference = results.row("full")
        digits = 2 if results.score_name == "success rate" else 3
        first = [title(results), str(reference["n_episodes"]), f"{reference['mean_score']:.{digits}f}"]
        lines.append([*first, *(difference_cell(results, key, digits) for key in OVERVIEW)])
    return columns, lines


def difference_cell(results: TaskResults, key: str, digits: int) -> str:
    """'-' where the task has no such method."""
    row = next((row for row in results.rows if key_of(row) == "@".join(split_key(key))), None)
    if row is None:
        return "-"
    text = difference(row, digits)
    return f"**{text}**" if row["noninferiority"]["result"] == "shown" else text
