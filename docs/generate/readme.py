"""The README's table and the sentences with numbers around it, between its two marks."""

from __future__ import annotations

from pathlib import Path

from bac_workbench.evaluation.comparison_tables import markdown, verdict_text
from bac_workbench.reporting.names import label, split_key
from bac_workbench.reporting.stored import Benchmark, TaskResults, read_json
from bac_workbench.reporting.tables import difference, estimate, key_of
from docs.generate.frontier import certificates, stored, tuned_key
from docs.generate.gpu_kernel import shipped_form
from docs.generate.latency_page import worth
from docs.generate.results_pages import verdict
from docs.generate.stored import RESULTS, ROOT, read_frontier, wrapped

README = ROOT / "README.md"
BEGIN, END = "<!-- results: begin (python -m docs.generate) -->", "<!-- results: end -->"
TASK, RUNTIME = "pusht_lowdim", "compiled"
WAITING_COSTS = "kitchen_scripted_demos"  # most of the stored tasks
METHODS = (
    "full",
    "full@ddim16",
    "uniform_s10",
    "bac_s10",
    "sacs_s10",
    "full@ancestral5",
    "full@ancestral4",
)
FASTEST = METHODS[-1]  # of these, whose factors are told apart
NAMES = {"full@ddim16": "DDIM-16, what people do today", "bac_s10": "BAC as published, budget 10"}
PROVEN = """What `bac tune` found for every bundled policy, each proven on initial states that nothing else has seen not
to be worse than its full policy by more than 0.05:"""
NAMES |= {"sacs_s10": "S-ACS, at BAC's FLOPs"}


def block() -> str:
    """The table of Push-T, what it was measured on, and what is proven on the five tasks."""
    results = read_frontier(TASK)
    rows = [row_of(results, key) for key in METHODS]
    columns = ["method", "score [95 %]", "difference to full [95 %]", "not worse by 0.05", "ms per chunk"]
    columns += ["faster than the plain policy"]
    texts = measured(results), levers(results), worth(WAITING_COSTS), PROVEN
    parts = [markdown((columns, rows)).strip(), *map(wrapped, texts), certificates(), wrapped(verdict(stored()))]
    return "\n\n".join(parts)


def row_of(results: TaskResults, key: str) -> list[str]:
    row, timed = results.row(key), results.benchmark.row(key, RUNTIME)
    name = NAMES.get(key, label(*split_key(key)))
    return [
        f"**{name}** (tuned)" if key_of(row) == tuned_key(TASK) else name,
        estimate(row["mean_score"], row["interval_95"], 3),
        difference(row),
        verdict_text(row).split(" (")[0],
        f"{timed['ms_p50']:.1f}",
        f"{timed['speedup']:.0f}x",
    ]


def measured(results: TaskResults) -> str:
    row, timed = results.rows[0], results.benchmark
    return (
        f"{row['n_episodes']} episodes, the same initial states and noise for every method; the score is the largest "
        f"coverage reward. Times: one thread of an {processor(timed)}, batch 1, `runtime={RUNTIME}` in every "
        f"row, one interleaved run. The plain policy, module by module as in the original, takes "
        f"{timed.plain['ms_p50']:.0f} ms there."
    )


def levers(results: TaskResults) -> str:
    """The speed-up of the fastest method, factor by factor."""
    row = results.benchmark.row(FASTEST, RUNTIME)
    by, gpu = row["levers"], read_json(RESULTS / "speed_gpu_kernel.json")
    whole, shipped = gpu["interleaved"]["ms_p50"], shipped_form(gpu)
    return (
        f"The {row['speedup']:.0f}x of {label(*split_key(FASTEST))} are {by['runtime']:.1f}x by the runtime, "
        f"{by['tokens']:.1f}x by the tokens and {by['steps_and_schedule']:.1f}x by fewer evaluations. On an H100 the "
        f"runtime alone gives {whole['reference']['full'] / whole['persistent']['full']:.0f}x "
        f"({whole['reference']['full']:.0f} to {whole['persistent']['full']:.0f} ms in one run; since then its kernel "
        f"went from {gpu['forms'][0]['kernel_ms']['full']:.0f} to {shipped['kernel_ms']['full']:.0f} ms)."
    )


def processor(timed: Benchmark) -> str:
    return timed.info["provenance"]["hardware"].split(",")[0].replace("(R)", "")


def pages() -> dict[Path, str]:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return {README: f"{before}{BEGIN}\n{block()}\n{END}{after}"}
