"""The BAC paper's tables again: bac reproduce tasks=[pusht_lowdim] seeds=[0,1,2] launcher=joblib

usage: bac reproduce [tasks=[...]] [seeds=[0,1,2]] [trainings=[0,1,2]] [<setting>=<value> ...]
or:    bac reproduce --tasks pusht_lowdim,block_pushing --seeds 0,1,2 [<setting>=<value> ...]

Runs what is missing, times all methods of a task in one interleaved run, and ends in paper/: table1 and table2 as
.md, .tex and .csv, figures/ and report.html. The same command after an interruption goes on where it stopped.

  tasks=null              null: all that have a policy here
  trainings=null          of the published ones, such as [0,1,2]; null: the task's own policy, else all published ones
  checkpoint_types=[max,avg]   of each training: the best, the last
  seeds=[0,1,2]           of the policy's noise
  tables=[1,2]            1: the methods, 2: the ablation of BAC
  budgets=[5,10,20]       of Uniform and BAC in Table 1, beside 10, which both tables have
  further=[full@ddim16,tuned]  further rows, named as in bac benchmark; tuned is what bac tune has proven
  n_test=50               test episodes of each cell
  n_chunks=20             rounds of the interleaved timing; 0: none
  runtime=compiled        of the rollouts; timed are this and reference
  margin=0.05             of the verdicts
  missing=error           error: every checkpoint has to be here before anything runs; skip: leave tasks out
  dry_run=false           only say what is there, what is missing and about how long it takes
  pictures=true           whether to draw figures/
  output_dir=paper        an evaluation that results/ holds already is copied there

All other settings go to every evaluation, as bac eval takes them: launcher=slurm hydra.launcher.partition=gpu,
eval.n_envs=20, device=cuda, download=true, task.environment.max_steps=100.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bac_workbench.console import console, readable_errors, table
from bac_workbench.settings import read_arguments, wants_help
from bac_workbench.settings.reproducing import Reproduce, split

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

    from bac_workbench.reproducing.cells import Cell
    from bac_workbench.reproducing.planning import Plan

DEFAULTS = {
    "tasks": None,
    "trainings": None,
    "checkpoint_types": ["max", "avg"],
    "seeds": [0, 1, 2],
    "tables": [1, 2],
    "budgets": [5, 10, 20],
    "further": ["full@ddim16", "tuned"],
    "n_test": 50,
    "n_chunks": 20,
    "runtime": "compiled",
    "margin": 0.05,
    "missing": "error",
    "dry_run": False,
    "pictures": True,
    "output_dir": "paper",
}


def main() -> int:
    """Returns the exit status: 1 where a cell failed or something could not be compared."""
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return 0
    with readable_errors():
        own, others = split(sys.argv[1:])
        settings = Reproduce.model_validate(read_arguments(own, "reproduce", DEFAULTS))
        return reproduce(settings, others)


def reproduce(settings: Reproduce, others: Sequence[str]) -> int:
    from hydra.core.global_hydra import GlobalHydra

    from bac_workbench.reproducing.cells import adopt
    from bac_workbench.reproducing.planning import check_others, plan_all
    from bac_workbench.reproducing.sources import require_all, sources_of
    from bac_workbench.reproducing.write import check_installed, open_folder, write_all
    from bac_workbench.settings.composition import config_folder
    from diffusion_policy.common.config import register_resolvers

    register_resolvers()
    sources = sources_of(settings, others)
    output = Path(settings.output_dir).expanduser()
    with config_folder():
        check_others(settings, sources.here, others)
        if not settings.dry_run and settings.missing == "error":
            require_all(sources)
        say_sources(settings, sources)
        if not settings.dry_run:
            check_installed()
            open_folder(output, settings, others)
        plan = plan_all(settings, sources.here, others, output, say)
        show_plan(plan)
        if settings.dry_run:
            return 0
        if copied := adopt(plan.cells, output):
            say(f"copied from results/: {copied} evaluations that were there")
        finished = run_cells(GlobalHydra.instance().hydra, plan.open_cells, others)
        timed = [time_task(settings, policies, others, output) for policies in plan.by_task().values()]
        compared = write_all(output, settings, plan.assets, say)
    return 0 if finished and all(timed) and compared else 1


def say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def say_sources(settings: Reproduce, sources) -> None:
    if settings.tasks is None:
        say(
            f"tasks with a policy here: {', '.join(dict.fromkeys(item.task.choice for item in sources.here)) or 'none'}"
        )
        if sources.elsewhere:
            say(f"without one, and not asked for: {', '.join(sources.elsewhere)}; tasks=[...] asks for them")
    for source in sources.lacking:
        say(f"not here: {source.words}; get it with {source.how_to_get}")


def show_plan(plan: Plan) -> None:
    """A line for each method of a policy: what became of its cells, and about how long the missing ones take.

    Episodes that succeed end before that; a machine that does other work, too, takes longer.
    """
    from bac_workbench.reproducing.duration import told

    rows = []
    for (source, method), cells in plan.by_method().items():
        states = Counter(cell.state for cell in cells)
        rows.append(
            [source, method, ", ".join(f"{count} {state}" for state, count in states.items()), plan.told(cells)]
        )
    shown = table("the cells", ["policy", "method", "noise seeds", "takes about"], rows)
    for column in shown.columns[1:3]:
        column.justify = "left"
    console.print(shown)
    counts = Counter(cell.state for cell in plan.cells)
    parts = ", ".join(f"{count} {state}" for state, count in counts.items())
    seconds = plan.seconds()
    long = "" if seconds is None or not plan.open_cells else f"; one after the other about {told(seconds)}"
    say(f"{len(plan.cells)} cells: {parts}{long}")


def run_cells(hydra: Hydra, cells: Sequence[Cell], others: Sequence[str]) -> bool:
    """Runs cells on the launcher that `others` choose; returns whether all have finished."""
    from bac_workbench.commands.eval import evaluate_policy
    from bac_workbench.reproducing.planning import first_seeds, with_videos
    from bac_workbench.sweeps.report import tell
    from bac_workbench.sweeps.sweep import Interrupted, Sweep

    if not cells:
        return True
    filmed = first_seeds(cells)
    overrides = [[*with_videos(cell, cell in filmed, others), *others] for cell in cells]
    sweep = Sweep.over(hydra, "eval", overrides, evaluate_policy)
    sweep.names = [f"{cell.source.words}: {cell.method} seed={cell.seed}" for cell in cells]
    try:
        outcomes, records = sweep.run()
    except Interrupted as interrupted:
        tell(sweep.names, interrupted.outcomes, None)
        raise KeyboardInterrupt from None
    complete = tell(sweep.names, outcomes, records)
    if complete:
        records.remove()
    return complete


def time_task(settings: Reproduce, policies: Sequence[list[Cell]], others: Sequence[str], output: Path) -> bool:
    """Times the methods of a task in one interleaved run, unless that was done; returns whether it could be."""
    from bac_workbench.commands.benchmark import time_methods
    from bac_workbench.errors import clearest, is_users
    from bac_workbench.reproducing.timing import Timings

    if settings.n_chunks == 0:
        return True
    timings = Timings.of(settings, policies[0], others)
    try:
        if (found := timings.stored()) is not None:
            say(found)
            return True
        time_methods(timings.config("overwrite=true"))  # `stored` has found nothing else there
        return True
    except Exception as error:
        if not is_users(error):
            raise
        say(f"{timings.task} was not timed: {clearest(error)}")
        return False
