"""docs/results/latency.md: scores in a world that goes on while the policy computes, from stored comparisons."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES, label, split_key
from bac_workbench.reporting.stored import FRONTIER, Benchmark, TaskResults, read_results
from bac_workbench.reporting.tables import difference, estimate
from docs.generate.frontier import tuned_key
from docs.generate.stored import MARK, RESULTS, read_benchmark, wrapped

LATENCY = "latency"
METHODS = ("full", "full@ddim16", "uniform_s10", "bac_s10", "sacs_s10", "full@ancestral5")
ASYNCHRONOUS = "async"
NOISE = "0"  # the noise seed of these episodes
INTRODUCTION = """\
Every other table here stops the world while the policy computes. In these the simulated world goes on: the robot
executes its last chunk meanwhile, and the late actions of the new one are dropped (`eval.clock=real
eval.thinking=async`, see [what latency costs](../howto/latency.md)). What decides is how many control steps a chunk
is late: one up to the length of a control step, then one more for each. So a method that is twice as fast may gain
nothing, or everything."""


@dataclass(frozen=True)
class Place:
    """A machine and runtime whose times are looked up.

    Attributes:
        title: what it is called.
        timed: its times of chunks with all tokens, which a world that goes on needs.
        runtime: of these times.
    """

    title: str
    timed: Benchmark
    runtime: str


def stored() -> list[TaskResults]:
    """The tasks with a stored comparison of latencies."""
    return [found for task in TITLES if (found := read_results(RESULTS, task, LATENCY)) is not None]


def latency_page() -> str:
    tasks = stored()
    parts = ["# What speed is worth in score", INTRODUCTION]
    for results in tasks:
        parts += section(results)
    return f"{MARK}\n" + wrapped("\n\n".join(parts)) + "\n"


def places(task: str) -> list[Place]:
    cpu = read_benchmark(f"{task}_{LATENCY}", "cpu", 1)
    found = [Place("plain CPU", cpu, "reference"), Place("compiled CPU", cpu, "compiled")]
    if (RESULTS / f"{task}_benchmark_gpu_h100_batch1.json").exists():
        found.append(Place("compiled GPU", read_benchmark(task, "gpu_h100", 1), "compiled"))
    return found


def section(results: TaskResults) -> list[str]:
    """A task's tables."""
    of_task, rate = places(results.task), control_rate(results)
    columns = ["method", "the world waits"]
    for place in of_task:
        columns += [f"{place.title}: ms", "late, steps", "score [95 %]"]
    rows = []
    tuned = tuned_key(results.task)
    for key in dict.fromkeys((*METHODS, *([tuned] if tuned else []))):
        name = label(*split_key(key))
        cells = [f"**{name}** (tuned)" if key == tuned else name, stopped(results, key)]
        for place in of_task:
            cells += late_cells(results, key, place, rate)
        rows.append(cells)
    reference = next(row for row in of_method(results, "full") if clock_of(row) is None)
    machine = of_task[0].timed
    text = (
        f"Control rate {rate:g} Hz, so a step is {1000 / rate:.0f} ms. {counted(results, reference)} initial states "
        f"from seed {results.reference['test_seeds_from']}, noise seed 0; the full policy in a world that waits scores "
        f"{estimate(reference['mean_score'], reference['interval_95'], 3)}. Times: batch 1, all tokens, "
        f"{machine.machine}."
    )
    parts = [f"## {results.title}", text, markdown((columns, rows)).strip(), *untimed(results, tuned, of_task[0])]
    if (curve := curve_table(results)) is not None:
        parts += ["Five evaluations (ancestral-5) at other latencies, and what the robot does meanwhile:", curve]
    if (RESULTS.parent / "figures" / f"latency_{results.task}.png").exists():
        parts.append(f"![score against latency](../figures/latency_{results.task}.png)")
    return [*parts, f"`TASKS={results.task} shs/latency.sh` makes the numbers again."]


def untimed(results: TaskResults, tuned: str | None, place: Place) -> list[str]:
    """A sentence on the tuned setting where it was rolled out and not timed with the others."""
    if tuned is None or place.timed.row(tuned, place.runtime) is not None:
        return []
    scored = {clock_of(row): estimate(row["mean_score"], row["interval_95"], 3) for row in of_method(results, tuned)}
    found = scored.get((ASYNCHRONOUS, 1))
    name = label(*split_key(tuned))
    return [] if found is None else [f"{name} was not timed in this run. Where it is one step late it scores {found}."]


def counted(results: TaskResults, reference: dict[str, Any]) -> str:
    """How many initial states there are, and in how many of them the world goes on."""
    fewest, count = min(row["n_episodes"] for row in results.rows), reference["n_episodes"]
    return str(count) if fewest == count else f"{fewest} (for the full policy in a world that waits {count})"


def worth(task: str) -> str:
    """What the full policy's speed is worth on a task, in a sentence."""
    results = next(found for found in stored() if found.task == task)
    rate, (plain, compiled, *_) = control_rate(results), places(task)
    (slow, late, lost), (fast, _, kept) = (late_cells(results, "full", place, rate) for place in (plain, compiled))
    return (
        f"Speed is worth score where the world does not wait: on {results.title} the full policy's "
        f"{stopped(results, 'full')} becomes {lost} module by module ({slow} ms, {late} control steps late), and "
        f"{kept} compiled ({fast} ms). [Latencies](docs/results/latency.md)."
    )


def control_rate(results: TaskResults) -> float:
    return next(row["clock"]["control_hz"] for row in results.rows if isinstance(row["clock"], dict))


def stopped(results: TaskResults, key: str) -> str:
    """The score where the world waits, of the same episodes; a dash where it is not stored."""
    known = [results, read_results(RESULTS, results.task, FRONTIER)]
    rows = [row for one in known if one is not None for row in of_method(one, key)]
    found = next((row for row in rows if not isinstance(row["clock"], dict)), None)
    if found is None:
        return "-"
    episodes = next(iter(results.rows))["scores"][NOISE]
    return f"{statistics.fmean(found['scores'][NOISE][seed] for seed in episodes):.3f}"


def of_method(results: TaskResults, key: str) -> list[dict[str, Any]]:
    return [row for row in results.rows if (row["method"], row["sampler"]) == split_key(key)]


def late_cells(results: TaskResults, key: str, place: Place, rate: float) -> list[str]:
    """Time, steps late, and the score of the episodes with as many; dashes where there are none."""
    timed = place.timed.row(key, place.runtime)
    if timed is None:
        return ["-", "-", "-"]
    late = math.ceil(timed["ms_p50"] * rate / 1000)
    found = next((row for row in of_method(results, key) if clock_of(row) == (ASYNCHRONOUS, late)), None)
    score = "-" if found is None else estimate(found["mean_score"], found["interval_95"], 3)
    return [f"{timed['ms_p50']:.0f}", str(late), score]


def clock_of(row: dict[str, Any]) -> tuple[str, int] | None:
    """What the robot does meanwhile, and how many steps a chunk is late; None where the world waits."""
    clock = row["clock"]
    return (clock["thinking"], clock["delay_steps"][0]) if isinstance(clock, dict) else None


def curve_table(results: TaskResults) -> str | None:
    """Paired differences to the full policy in a world that waits, by mode and steps late."""
    clocks = {clock_of(row): row for row in of_method(results, "full@ancestral5") if clock_of(row) is not None}
    late = sorted({steps for _, steps in clocks})
    modes = [mode for mode in ("hold", ASYNCHRONOUS, "rtc") if any(name == mode for name, _ in clocks)]
    if len(late) < 2 or len(modes) < 2:
        return None
    rows = [
        [f"`{mode}`", *(difference(clocks[mode, steps]) if (mode, steps) in clocks else "-" for steps in late)]
        for mode in modes
    ]
    return markdown((["meanwhile", *(f"{steps} step{'s' if steps > 1 else ''} late" for steps in late)], rows)).strip()
