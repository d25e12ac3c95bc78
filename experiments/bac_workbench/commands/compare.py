"""Compare stored evaluations, paired with the full policy: bac compare results/pusht_lowdim [full] [margin=0.03]

usage: bac compare RESULTS_FOLDER [REFERENCE]   (the folder that holds full/, bac/, ..., or one above several such)

Runs of one method that differ in their noise seed alone are pooled, each paired with the full policy of that seed.
The second argument names the only run of the full policy to pair with, where there are several (other weights,
runtimes). margin= is what a method may lose at most in mean score (0.05), for the verdict: shown, not shown or refuted.
Evaluations of the same checkpoint and test seeds are compared, over the episodes that both have. Of a folder above
several such (bac compare results) there is a table for each and an overview.

Written there: comparison.md, comparison.tex (booktabs), comparison.csv (a line per method), comparison.json (all of
it), episodes.csv (a line per episode), and latency.png where the world went on while a policy thought
(eval.clock=real).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bac_workbench.console import console, readable_errors, table
from bac_workbench.settings import read_arguments, read_positional, wants_help
from bac_workbench.settings.arguments import split
from bac_workbench.settings.clock import STOPPED
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from bac_workbench.evaluation.comparison import Comparison

DEFAULTS = {"margin": 0.05}


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        names, settings = split(sys.argv[1:])
        name, *reference = read_positional(names, "compare", ("RESULTS_FOLDER", "REFERENCE"), optional=1)
        margin = read_arguments(settings, "compare", DEFAULTS)["margin"]
        folder = Path(name)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: name the one that holds full/, bac/, ...")
        compare_runs(folder, reference, float(margin))


def compare_runs(folder: Path, reference: list[str], margin: float) -> None:
    from bac_workbench.evaluation.comparison import Comparison, compare_all
    from bac_workbench.evaluation.comparison_tables import overview_lines

    found = compare_all(folder, *(reference or [None]), margin)
    if isinstance(found, Comparison):
        show(found)
    else:
        for name, comparison in found.tasks.items():
            show(comparison, f"{name}: ")
        rows = {name: comparison.rows for name, comparison in found.tasks.items()}
        console.print(table("paired difference to full [95 %], and verdict", *overview_lines(rows)))
        for name, reason in found.skipped.items():
            console.print(f"left out: {name}: {reason}", style="yellow")
    console.print(f"written: {folder / found.files[0]}, {', '.join(found.files[1:])}")


def show(comparison: Comparison, title: str = "") -> None:
    from bac_workbench.evaluation.comparison_tables import comparison_tables, machine_notes

    console.print(*comparison_tables(comparison.rows, comparison.margin, title), sep="\n")
    clocks = any(row["clock"] != STOPPED for row in comparison.rows)
    waits = f" ({comparison.reference_clock or 'the world waits while it thinks'})" if clocks else ""
    console.print(f"paired with {', '.join(comparison.references)}{waits}")
    for note in machine_notes(comparison.rows):
        console.print(note)
    for run, reason in comparison.skipped.items():
        console.print(f"left out: {run}: {reason}", style="yellow")
