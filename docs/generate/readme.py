"""The README's table and the sentences with numbers around it, between its two marks."""

from __future__ import annotations

from pathlib import Path

from docs.generate.results_pages import score, verdict
from docs.generate.stored import ROOT, TITLES, label, read_benchmark, read_task, split_key, table, wrapped

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
            f"{timed.milliseconds(key, RUNTIME):.1f}",
            f"{timed.speedup(key, RUNTIME):.1f}x",
        ]
        for key in METHODS
    ]
    processor = timed.info["provenance"]["hardware"].split(",")[0].replace("(R)", "")
    measured = (
        f"{results.rows[0]['n_episodes']} test episodes, the same initial states and noise for every method; the score "
        f"is the largest coverage reward. Times: one thread of an {processor}, batch 1, `runtime={RUNTIME}` in every "
        "row; the speed-up is against the full policy in that runtime."
    )
    runtime = (
        f"The runtime alone makes the full policy {timed.runtime_gain(RUNTIME):.1f} times faster than the original's "
        f"module-by-module loop on this processor ({change(timed)}) and {gpu.runtime_gain(RUNTIME):.1f} times faster "
        f"on an H100 ({change(gpu)}), with the same actions to rounding."
    )
    texts = (measured, runtime, verdict([read_task(task) for task in TITLES]))
    columns = ["method", "score [95 %]", "ms per chunk", "speed-up"]
    return "\n\n".join([table(columns, rows), *map(wrapped, texts)])


def change(run) -> str:
    """'851 to 146 ms', of the full policy."""
    return f"{run.milliseconds('full', 'reference'):.0f} to {run.milliseconds('full', RUNTIME):.0f} ms"


def pages() -> dict[Path, str]:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return {README: f"{before}{BEGIN}\n{block()}\n{END}{after}"}
