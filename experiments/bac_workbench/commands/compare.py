"""Compare stored evaluations, paired with the full policy: bac compare results/pusht_lowdim [full]

usage: bac compare RESULTS_FOLDER [REFERENCE]   (the folder that holds full/, bac/, ...)

Runs of one method that differ in their noise seed alone are pooled, each paired with the full policy of that seed.
The second argument names the only run of the full policy to pair with, where there are several (other weights,
runtimes). Evaluations of the same checkpoint and test seeds are compared; comparison.md and comparison.json are written
there, and latency.png where the world went on while a policy thought (eval.clock=real).
"""

from __future__ import annotations

import sys
from pathlib import Path

from bac_workbench.console import console, readable_errors
from bac_workbench.settings import read_positional, wants_help
from bac_workbench.settings.clock import STOPPED
from diffusion_policy.common.config import ConfigError


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        name, *reference = read_positional(sys.argv[1:], "compare", ("RESULTS_FOLDER", "REFERENCE"), optional=1)
        folder = Path(name)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: name the one that holds full/, bac/, ...")
        compare_runs(folder, reference)


def compare_runs(folder: Path, reference: list[str]) -> None:
    from bac_workbench.evaluation.comparison import compare, comparison_tables
    from bac_workbench.evaluation.latency_picture import LATENCY

    comparison = compare(folder, *reference)
    console.print(*comparison_tables(comparison.rows), sep="\n")
    timed = any(row["clock"] != STOPPED for row in comparison.rows)
    waits = f" ({comparison.reference_clock or 'the world waits while it thinks'})" if timed else ""
    console.print(f"paired with {', '.join(comparison.references)}{waits}")
    for run, reason in comparison.skipped.items():
        console.print(f"left out: {run}: {reason}", style="yellow")
    console.print(f"written: {folder / 'comparison.md'}, comparison.json{f', {LATENCY}' if timed else ''}")
