"""The README's table and the sentences with numbers around it, between its two marks."""

from __future__ import annotations

from pathlib import Path

from docs.generate.results_pages import difference, score, verdict
from docs.generate.stored import ROOT, TITLES, label, read_benchmark, read_task, split_key, table

README = ROOT / "README.md"
BEGIN, END = "<!-- results: begin (python -m docs.generate) -->", "<!-- results: end -->"
METHODS = ("full", "uniform_s10", "bac_s10", "bac_s20", "full@ddim16", "full@ddim10", "bac_s4@ddim16")
RUNTIME = "compiled"


def block() -> str:
    """The table of Push-T, what it was measured on, and what the five tasks say together."""
    results = read_task("pusht_lowdim")
    timed, gpu = results.benchmark, read_benchmark("pusht_lowdim", "gpu_h100", 1)
    rows = [
        [
            label(*split_key(key)),
            score(results, key),
            difference(results.row(key)),
            f"{timed.milliseconds(key, RUNTIME):.1f}",
            f"{timed.speedup(key, RUNTIME):.1f}x",
        ]
        for key in METHODS
    ]
    columns = ["method", "score [95 %]", "paired difference to full [95 %]", "ms per chunk", "speed-up"]
    facts = timed.info["provenance"]
    return f"""{table(columns, rows)}

{results.rows[0]["n_episodes"]} test episodes, the same initial states and noise for every method; the score is the largest coverage
reward. Times: one thread of an {facts["hardware"].split(",")[0].replace("(R)", "")}, batch 1, `runtime={RUNTIME}` in every row; the
speed-up is against the full policy in that runtime.

The runtime alone makes the full policy {timed.runtime_gain(RUNTIME):.1f} times faster than the original's module-by-module loop on this
processor ({timed.milliseconds("full", "reference"):.0f} to {timed.milliseconds("full", RUNTIME):.0f} ms) and
{gpu.runtime_gain(RUNTIME):.1f} times faster on an H100 ({gpu.milliseconds("full", "reference"):.0f} to
{gpu.milliseconds("full", RUNTIME):.0f} ms), with the same actions to rounding.

{verdict([read_task(task) for task in TITLES])}"""


def pages() -> dict[Path, str]:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return {README: f"{before}{BEGIN}\n{block()}\n{END}{after}"}
