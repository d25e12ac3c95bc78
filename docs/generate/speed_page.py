"""docs/results/speed.md: the runtimes on four machines, from the stored timing runs."""

from __future__ import annotations

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES, label, split_key
from bac_workbench.reporting.stored import Benchmark, read_json, read_results
from bac_workbench.reporting.tables import both, runtimes_table
from docs.generate.gpu_kernel import kernel_text
from docs.generate.speed_growth import (
    encoders_text,
    evaluations_text,
    growth_text,
    peers_text,
    precisions_text,
    tiles_text,
)
from docs.generate.stored import MARK, RESULTS, read_benchmark, wrapped

TASK = "pusht_lowdim"
INTRODUCTION = """Push-T, the bundled policy. `reference` runs the policy module by module, as the original code
does; `planned` computes what does not depend on the noise once and fuses the rest in eager PyTorch; `compiled` is a
native loop on a CPU, and on a GPU one kernel or one CUDA graph. All give the same actions to rounding. A method's
speed-up is against the full policy in the *same* runtime. The FLOP bound is what the skipped arithmetic alone would
give."""
EARLIER = """The machines below were measured with earlier versions of the runtimes, whose CPU engine was slower, and
denoise every token. They are what such a machine gave at the commit in its stored file."""
COMMANDS = """```bash
bac benchmark task=pusht_lowdim device=cpu batch=1
bac benchmark task=pusht_lowdim device=auto batch=1
```

`shs/speed.sh` makes these tables again on the machine at hand."""


def speed_page() -> str:
    new, newer = read_benchmark(TASK, "cpu_zen5", 1), read_benchmark(TASK, "cpu_zen5", 28)
    one, many = read_benchmark(TASK, "cpu", 1), read_benchmark(TASK, "cpu", 28)
    narrow, gpu = read_benchmark(TASK, "cpu_avx2", 1), read_benchmark(TASK, "gpu_h100", 1)
    parts = ["# Speed", INTRODUCTION, "## A processor with AVX512-BF16", batches_table(new, newer), gains(new, newer)]
    parts += [f"{new.machine}; batch 28: {newer.rows[0]['n']} rounds.", floors(new, newer)]
    parts += ["## An Intel processor with AVX-512", batches_table(one, many)]
    parts += [gains(one, many), f"{one.machine}; batch 28: {many.rows[0]['n']} rounds.", floors(one, many), EARLIER]
    parts += ["## A processor with AVX2", markdown(runtimes_table(narrow)).strip(), narrow_text(narrow)]
    parts += ["## A GPU: a CUDA graph", markdown(runtimes_table(gpu)).strip(), gpu_text(gpu)]
    kernel = kernel_text(read_json(RESULTS / "speed_gpu_kernel.json"))
    parts += ["## A GPU: one persistent kernel", kernel, "## Beside other engines"]
    parts += [peers_text(read_json(RESULTS / "speed_peers.json")), "## The vision encoder"]
    parts += [encoders_text(read_json(RESULTS / "speed_encoders.json")), "## Precisions"]
    scored = [found for task in TITLES if (found := read_results(RESULTS, task, "precision")) is not None]
    parts += [precisions_text(read_json(RESULTS / "speed_precisions.json"), scored)]
    parts += [tiles_text(read_json(RESULTS / "speed_precisions_amx.json")), "## How time grows"]
    parts += [growth_text(read_json(RESULTS / "speed_growth.json")), "## Evaluations"]
    parts += [evaluations_text(read_json(RESULTS / "speed_evaluations.json")), "## Your machine", COMMANDS]
    return f"{MARK}\n" + wrapped("\n\n".join(parts)) + "\n"


def batches_table(one: Benchmark, many: Benchmark) -> str:
    """A row per method and runtime, at batch 1 and batch 28."""
    columns = ["method", "runtime", "batch 1: ms p50 / p95", "speed-up, same runtime", "batch 28: ms p50"]
    columns += ["speed-up, same runtime", "FLOP bound"]
    rows = []
    for key in many.keys:
        for runtime in many.runtimes:
            cells = [label(*split_key(key)), runtime, both(one, key, runtime), f"{one.speedup(key, runtime):.2f}x"]
            cells += [f"{many.milliseconds(key, runtime):.0f}", f"{many.speedup(key, runtime):.2f}x"]
            rows.append([*cells, f"{one.row(key, runtime)['flop_ratio_bound']:.2f}x"])
    return markdown((columns, rows)).strip()


def gains(one: Benchmark, many: Benchmark) -> str:
    return (
        f"The runtime alone, on the full policy: planned {one.runtime_gain('planned'):.2f}x and compiled "
        f"{one.runtime_gain('compiled'):.2f}x at batch 1, {many.runtime_gain('planned'):.2f}x and "
        f"{many.runtime_gain('compiled'):.2f}x at batch 28."
    )


def floors(one: Benchmark, many: Benchmark) -> str:
    """What arithmetic and reading the weights would take at the machine's own rates."""
    rates = one.info["floors"]
    native = "native" in rates.get("measured_with", "")
    product = f"The {'native engine' if native else 'PyTorch'}'s fp32 matrix product".replace("The PyTorch", "PyTorch")
    full, bac = one.row("full", "compiled"), one.row("bac_s10", "compiled")
    return (
        f"{product} reaches {rates['gflops']:.0f} GFLOP/s in the same run, and reading as many "
        f"bytes as the packed weights {rates['weights_gb_per_s']:.0f} GB/s. At those rates the arithmetic of the "
        f"compiled BAC takes {bac['share_of_arithmetic_floor']:.0%} of its measured time and reading its weights "
        f"{bac['share_of_weights_floor']:.0%} (the two overlap); of the full policy's "
        f"{full['share_of_arithmetic_floor']:.0%} and {full['share_of_weights_floor']:.0%}. Actions differ from the "
        f"reference's by at most {largest_difference(one)} of the action range at batch 1 and "
        f"{largest_difference(many)} at batch 28."
    )


def largest_difference(run: Benchmark) -> str:
    return f"{max(row['max_action_diff'] for row in run.rows):.0e}"


def narrow_text(run: Benchmark) -> str:
    return (
        f"{run.machine}; fp32 matrix product {run.info['floors']['gflops']:.0f} GFLOP/s. The runtime alone makes the "
        f"full policy {run.runtime_gain('compiled'):.2f}x faster. The arithmetic at that rate takes "
        f"{run.row('full', 'compiled')['share_of_arithmetic_floor']:.0%} of the full policy's compiled time and "
        f"{run.row('bac_s10', 'compiled')['share_of_arithmetic_floor']:.0%} of BAC's."
    )


def gpu_text(run: Benchmark) -> str:
    full = run.row("full", "compiled")
    return (
        f"{run.machine}; `compiled` is a CUDA graph here. The runtime alone makes the full policy "
        f"{run.runtime_gain('compiled'):.2f}x faster. Launching "
        "kernels one by one from the host rules the reference. In the graph the latency of some thousand small kernels "
        f"is left: arithmetic and memory would take {full['share_of_arithmetic_floor']:.0%} and "
        f"{full['share_of_weights_floor']:.0%} of it. Actions agree to {largest_difference(run)}."
    )
