"""Tables from stored results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bac_workbench.console import console, table

COLUMNS = [
    "method",
    "mean score [95 %]",
    "episodes",
    "GFLOP/chunk",
    "block updates",
    "ms/chunk p50 / p95",
    "actions/s",
    "speedup",
    "same runtime",
]

WIDE = 130  # columns of a terminal that hold a row per method


def method_label(method: str, sampler: str, own: str) -> str:
    """A method as tables name it: with its sampler where that is not the checkpoint's own."""
    return method if sampler == own else f"{method} {sampler}"


def row(results: dict[str, Any], benchmark: dict[str, Any] | None) -> list[str]:
    """One line of the summary: FLOPs are the method's arithmetic, times are measured at batch 1."""
    low, high = results["mean_score_interval_95"]
    flops, updates = results["flops"], results["block_updates"]
    precision = results["provenance"].get("precision", "fp32")
    cells = [
        method_label(results["method"], results["sampler"], results["checkpoint_sampler"])
        + ("" if precision == "fp32" else f", {precision}"),
        f"{results['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
        str(results["n_episodes"]),
        f"{flops['gflop_per_chunk']:.2f}",
        f"{updates['per_chunk']} of {updates['full']}",
    ]
    if benchmark is None:
        return [*cells, *"----"]
    times = benchmark["method"]
    return [
        *cells,
        f"{times['ms_p50']:.1f} / {times['ms_p95']:.1f}",
        f"{times['action_hz']:.0f}",
        f"{benchmark['speedup']:.2f}x",
        f"{benchmark['speedup_same_runtime']:.2f}x",
    ]


def summary_table(results: Sequence[dict[str, Any]], benchmarks: Sequence[dict[str, Any] | None]) -> Table:
    """One row per evaluation (one column where the terminal is narrow).

    `speedup` is wall-clock at batch 1 against the plain policy, which is full with the checkpoint's own sampler in the
    reference runtime on all tokens; `same runtime` is against the same in the method's own runtime, on its tokens.
    """
    first = results[0]["provenance"]
    plain = f"full {results[0]['checkpoint_sampler']}"
    runtimes = ", ".join(dict.fromkeys(result["runtime"] for result in results))
    title = (
        f"{results[0]['task']}, {first['hardware']}; wall-clock at batch 1, "
        f"speedup: against the plain policy ({plain}, all tokens, reference); "
        f"same runtime: against {plain} in the method's own runtime ({runtimes})"
    )
    rows = [row(r, b) for r, b in zip(results, benchmarks)]
    if console.width >= WIDE:
        return table(title, COLUMNS, rows)
    methods, *measures = ([name, *values] for name, *values in zip(COLUMNS, *rows))
    return table(title, methods, measures)


def metrics_table(results: dict[str, Any]) -> Table | None:
    """Each of the task's other numbers with its interval; None for a task without any."""
    metrics = results.get("metrics")
    if not metrics:
        return None
    rows = [[name, interval_text(estimate)] for name, estimate in metrics.items()]
    return table(f"{results['task']}, share of {results['n_episodes']} episodes", ["event", "mean [95 %]"], rows)


def interval_text(estimate: dict[str, Any]) -> str:
    """A stored estimate {"mean", "interval_95"}."""
    low, high = estimate["interval_95"]
    return f"{estimate['mean']:.2f} [{low:.2f}, {high:.2f}]"


def levers_line(benchmark: dict[str, Any]) -> str:
    """What the speed-up over the plain policy is made of."""
    precision = benchmark["method"]["precision"]
    named = {"runtime": "runtime" if precision == "fp32" else f"runtime in {precision}"}
    parts = [f"{named.get(name, name.replace('_', ' '))} {factor:.2f}x" for name, factor in benchmark["levers"].items()]
    return f"speedup {benchmark['speedup']:.2f}x = {' * '.join(parts)} (times at batch 1, one interleaved run)"


def throughput_line(results: dict[str, Any]) -> str:
    """How fast this call's episodes were rolled out, and where the time went."""
    stats = results["rollout"]
    if not stats["env_steps"]:
        return "rollout: nothing was left to do"
    steps, seconds = stats["env_steps"], stats["wall_s"]
    return (
        f"rollout: {steps:,} environment steps in {seconds:.0f} s = {steps / seconds:.0f} per second; "
        f"{100 * stats['policy_share']:.0f} % of the time in the policy; "
        f"one process that only simulates does {steps / stats['simulation_s']:.0f} per second"
    )
