"""Tables, the picture and the trace summary of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from bac_workbench.console import console, table
from bac_workbench.evaluation.report import WIDE, method_label
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.files import atomic_path

# Okabe and Ito's palette, told apart without colour vision; each runtime has a mark of its own, too.
RUNTIME_STYLES = {"reference": ("#000000", "s"), "planned": ("#0072B2", "o"), "compiled": ("#D55E00", "D")}


COLUMNS = [
    "method",
    "runtime",
    "ms p50",
    "ms p95",
    "speedup",
    "same runtime",
    "FLOP bound",
    "max diff",
    "runtime * tokens * steps",
    "ms encode / cond / denoise / sched",
    "arith / weights share",
]
PARTS = ("observation_encoder", "conditioning", "denoiser", "scheduler")


def benchmark_table(result: dict[str, Any]) -> Iterator[Table]:
    """A table per batch size. On a narrow terminal the last two columns are left to benchmark.json."""
    floors, provenance = result["floors"], result["provenance"]
    own = provenance["checkpoint_sampler"]
    machine = (
        f"{provenance['hardware']}; fp32 product {floors['gflops']:.0f} GFLOP/s ({floors['measured_with']}), "
        f"weights read at {floors['weights_gb_per_s']:.0f} GB/s"
    )
    kinds = (
        f"speedup and its factors: against the plain policy (full {own}, all tokens, reference); "
        f"same runtime: against full {own} in the same"
    )
    n_columns = len(COLUMNS) if console.width >= WIDE else len(COLUMNS) - 2
    for batch in sorted({row["batch"] for row in result["rows"]}):
        rows = [table_cells(row, own)[:n_columns] for row in result["rows"] if row["batch"] == batch]
        yield table(
            f"batch {batch}, {machine}\n{kinds} runtime, on the same tokens ({provenance['tokens']})",
            COLUMNS[:n_columns],
            rows,
        )


def table_cells(row: dict[str, Any], own_sampler: str) -> list[str]:
    """One line of benchmark.json, by `COLUMNS`."""
    return [
        method_label(row["method"], row["sampler"], own_sampler),
        row["runtime"],
        f"{row['ms_p50']:.1f}",
        f"{row['ms_p95']:.1f}",
        f"{row['speedup']:.2f}x",
        f"{row['speedup_same_runtime']:.2f}x",
        f"{row['flop_ratio_bound']:.2f}x",
        "-" if row["max_action_diff"] is None else f"{row['max_action_diff']:.0e}",
        " * ".join(f"{factor:.2f}" for factor in row["levers"].values()),
        " / ".join(f"{row['breakdown_ms'][part]:.1f}" for part in PARTS),
        f"{row['share_of_arithmetic_floor']:.0%} / {row['share_of_weights_floor']:.0%}",
    ]


def plot_benchmark(result: dict[str, Any], path: Path) -> None:
    """Marks of ms per chunk on a logarithmic axis, a panel per batch size, with speed-ups over the plain policy.

    No bars: a logarithmic axis has no zero that they could start from.
    """
    from matplotlib.figure import Figure

    batches = sorted({row["batch"] for row in result["rows"]})
    figure = Figure(figsize=(9, 0.6 + 3.9 * len(batches)), layout="constrained")
    axes = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for axis, batch in zip(axes, batches):
        rows = [row for row in result["rows"] if row["batch"] == batch]
        methods = list(dict.fromkeys(f"{r['method']} {r['sampler']}" for r in rows))
        runtimes = [name for name in RUNTIME_STYLES if any(r["runtime"] == name for r in rows)]
        height = 0.8 / len(runtimes)
        for r in rows:
            y = (
                methods.index(f"{r['method']} {r['sampler']}")
                + (runtimes.index(r["runtime"]) - (len(runtimes) - 1) / 2) * height
            )
            colour, marker = RUNTIME_STYLES[r["runtime"]]
            axis.plot(r["ms_p50"], y, marker, color=colour, markersize=5)
            text = f"{_short(r['ms_p50'])} ms, {_short(r['speedup'])}x"
            axis.annotate(text, (r["ms_p50"], y), (6, 0), textcoords="offset points", va="center", fontsize=7)
        for name in runtimes:
            colour, marker = RUNTIME_STYLES[name]
            axis.plot([], [], marker, color=colour, label=name)
        for between in range(1, len(methods)):
            axis.axhline(between - 0.5, color="#E3E3E3", linewidth=0.6)
        axis.set_xscale("log")
        axis.set_xlim(right=axis.get_xlim()[1] * 2.2)
        axis.set_yticks(range(len(methods)), methods)
        axis.invert_yaxis()
        axis.set_xlabel("ms per action chunk (median, log scale)")
        axis.set_title(
            f"{result['provenance']['task']}, batch {batch}, {result['provenance']['hardware']}", fontsize=9, loc="left"
        )
        axis.legend(frameon=False, fontsize=8, loc="lower right")
        axis.grid(axis="x", color="#E3E3E3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip("."), dpi=130)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def trace_summary(experiment: Experiment, rows: int = 25) -> str:
    """Operator times of one chunk of the full policy with the experiment's sampler, by PyTorch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if experiment.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_device_time_total"
    with experiment.attached() as policy:
        obs = policy.random_observation(1, torch.Generator().manual_seed(0))
        policy.predict_action(obs)
        with torch.profiler.profile(activities=activities) as profile:
            policy.predict_action(obs)
    heading = f"full policy, all tokens, {experiment.sampler_name}, {experiment.device}\n"
    return heading + profile.key_averages().table(sort_by=key, row_limit=rows)
