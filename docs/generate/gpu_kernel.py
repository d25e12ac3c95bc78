"""What a GPU measured of the persistent kernel, from docs/results/speed_gpu_kernel.json."""

from __future__ import annotations

from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import label, split_key

#: milliseconds of a chunk to reach on an H100, by method
TARGETS = {"full": 8.0, "bac_s10": 2.5, "full@ddim10": 0.9, "full@ancestral5": 0.5}
KINDS = ("reference", "graph", "persistent")
TEXT = """Where a policy fits, `compiled` at batch 1 is one persistent kernel: a thread block per multiprocessor
keeps its share of the weights in shared memory from the first denoising step to the last. The first form waited for
all thread blocks after every product; it was timed with the others in one interleaved run of {rounds} rounds, whole
chunks with their noise and checks:"""
FORMS = """Then only the kernel was timed, on the same model of GPU: medians of ten launches, from events around
them. The form that is shipped gives the reference's actions to {difference:.0e}; its GPU tests pass, among them 200
chunks and chunks on three streams that are equal bit for bit. Its whole chunks were not timed yet: the first form
needed {least:.1f} to {most:.1f} ms besides the kernel. Since then a mask was added that tells the compiler how many
threads there are, and no sum is kept where outputs are extrapolated."""
FOUND = """What was found on the way. Waiting is a small part: a barrier takes {barrier:.1f} us, and sending 36 KB
from all to all {gather:.1f} us with its barrier. The kernel's time is that of issuing instructions, most of which
are addresses, reductions over lanes and moments of norms, and not products. Tensor cores made products several
times faster and the chunk slower, because the compiler could not know that lanes which had waited were together
again, and shuffled them by a slow path. A cluster of 16 multiprocessors that reads its weights from the L2 cache
would need {stream:.0f} us a step for that alone. A form that mends the slow path, and computes attention on tensor
cores, is in the history (`9aaf960`); it passes all tests that need no GPU, and no GPU has timed it."""
PARALLEL = """Denoising all steps at once instead (the linear part of the sampler exact, only the estimates of the
clean sample frozen, and repeated until they stay) was looked at for batch 1 and left out. On a CPU the full policy's
executed actions come within 1e-3 of the sequential ones after 8 rounds, not within rounding. A round evaluates 100
times 9 tokens, 14 GFLOP; 8 rounds are 115 GFLOP, about 4 ms at half of an H100's fp32 rate, and more with the rounds
that are missing to rounding. That is no clear gain over one kernel, for actions that are not the same."""


FUSED = """For what that kernel does not run, batches above all, `BAC_GPU=fused` asks for a CUDA graph whose steps
have one kernel between two matrix products: 64 launches in a full step of Push-T, where the graph has 134 (operations
that a CPU dispatches, counted). Its kernels are tested in their CPU form and compile for Ampere, Ada and Hopper. No GPU
has timed them: `python -m stress.gpu_fused output=FOLDER` will. The vision encoder of an image policy is a CUDA graph
of its own, PyTorch's kernels replayed (169 operations for two cameras); it is tested with a stand-in for the graph, and
`python -m stress.gpu_encoder output=FOLDER` will time it."""


def shipped_form(run: dict[str, Any]) -> dict[str, Any]:
    """The timed form of the kernel that this project ships."""
    return next(form for form in run["forms"] if form.get("shipped"))


def kernel_text(run: dict[str, Any]) -> str:
    """The section of docs/results/speed.md."""
    together, forms, times = run["interleaved"], run["forms"], run["microseconds"]
    measured = together["ms_p50"]
    rows = [
        [
            label(*split_key(key)),
            *(f"{measured[kind][key]:.1f}" for kind in KINDS),
            f"{together['kernel_alone_ms'][key]:.2f}",
        ]
        for key in TARGETS
    ]
    columns = [
        "method",
        "reference: ms p50",
        "CUDA graph: ms p50",
        "persistent, first form: ms p50",
        "its kernel alone: ms",
    ]
    besides = [measured["persistent"][key] - together["kernel_alone_ms"][key] for key in TARGETS]
    shipped = shipped_form(run)
    history = [
        [
            form["what"] + (" (**shipped**)" if form is shipped else ""),
            *(f"{form['kernel_ms'][key]:.2f}" if key in form["kernel_ms"] else "-" for key in TARGETS),
        ]
        for form in forms
    ]
    history.append(["*to reach*", *(f"*{target:g}*" for target in TARGETS.values())])
    text = FORMS.format(difference=shipped["difference"], least=min(besides), most=max(besides))
    found = FOUND.format(
        barrier=times["barrier of 132 thread blocks"],
        gather=times["36 KB from all to all of 128 thread blocks, with its barrier"],
        stream=times["12.6 MB of weights from the L2 cache by 16 multiprocessors"],
    )
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return "\n\n".join(
        [
            TEXT.format(rounds=together["rounds"]),
            markdown((columns, rows)).strip(),
            text,
            markdown((["form", *(f"{label(*split_key(key))}: ms" for key in TARGETS)], history)).strip(),
            f"{run['hardware']}, {versions}; Push-T, {run['tokens']} tokens, weights {run['weights']}, "
            f"batch {run['batch']}. "
            "[Stored data](speed_gpu_kernel.json); `python -m stress.gpu` measures it again.",
            found,
            FUSED,
            PARALLEL,
        ]
    )
