"""Full precision, Uniform and BAC on all tasks whose checkpoints are here; the others are listed.

    ./shs/benchmark/run_all_benchmarks.sh --device cuda:0 --skip_video [--steps 10 --seeds 0,1,2 --task can_ph]

A cell is one method on one checkpoint, evaluated in a process of its own; one that fails does not stop the others, and
one that is done is not done again. Rows go to results.csv, means over the trainings to summary.csv, and the paper's
Table 1 to table1.md and table1.tex.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bac_workbench.console import console, readable_errors
from bac_workbench.released.options import Flags, metric, name_command, one_of, several, whole
from bac_workbench.released.selection import add_groups, chosen_tasks, require_some, run_apart
from bac_workbench.released.table import RECORD, Cell, cell_rows, read_record, row_title, stored_rows, write_tables
from bac_workbench.setup.trainings import BEST, LAST, Training
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json

MODES = ("original", "threshold", "optimal")
FLAGS_CHOOSE = ("cache=", "cache.", "task=", "output_dir=", "checkpoint=")


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        name, steps: as in the tables; steps is the budget, "-" for the full policy.
        folder: of its cells.
        settings: what `bac eval` is told.
    """

    name: str
    steps: str
    folder: str
    settings: tuple[str, ...]


def flags() -> Flags:
    parser = Flags("run_all_benchmarks.sh", __doc__ or "")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: auto)")
    parser.add_argument(
        "--steps",
        type=several(whole(1, "number of updates")),
        default=[10],
        help="updates S, such as 5,10 (default: 10)",
    )
    parser.add_argument(
        "--seeds", type=several(one_of(("0", "1", "2"))), default=["0", "1", "2"], help="trainings (default: 0,1,2)"
    )
    parser.add_argument("--metric", type=metric, default="cosine", help="of BAC's schedules (default: cosine)")
    parser.add_argument("--num_bu_blocks", type=whole(0, "number of blocks"), default=5, help="repaired (default: 5)")
    parser.add_argument(
        "--cache_mode",
        type=several(one_of(MODES)),
        default=list(MODES),
        help="original (full precision), threshold (Uniform), optimal (BAC); default: all three",
    )
    parser.add_argument(
        "--checkpoint_type", choices=(BEST, LAST, "all"), default="all", help="best, last or both (default: all)"
    )
    parser.add_argument("--output_dir", default="results/benchmark", help="(default: results/benchmark)")
    parser.add_argument("--skip_video", action="store_true", help="film no episode")
    parser.add_argument("--force", action="store_true", help="evaluate again what is done")
    add_groups(parser)
    parser.settings_of("eval")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    with readable_errors():
        return run_cells(flags().read(sys.argv[1:] if arguments is None else arguments))


def methods_of(given: argparse.Namespace) -> Iterator[Method]:
    """The rows: the full policy once, the others for every S."""
    if "original" in given.cache_mode:
        yield Method("Full", "-", "Full", ("cache=full",))
    for steps in given.steps:
        if "threshold" in given.cache_mode:
            yield Method("Uniform", str(steps), f"Uniform_steps{steps}", ("cache=uniform", f"cache.budget={steps}"))
        if "optimal" in given.cache_mode:
            usual = (given.metric, given.num_bu_blocks) == ("cosine", 5)
            name = "BAC" if usual else f"BAC {given.metric} k={given.num_bu_blocks}"
            folder = f"BAC_{given.metric}_caches{steps}_bu{given.num_bu_blocks}"
            chosen = (f"cache.budget={steps}", f"cache.top_k={given.num_bu_blocks}", f"cache.metric={given.metric}")
            yield Method(name, str(steps), folder, ("cache=bac", *chosen))


def run_cells(given: argparse.Namespace) -> int:
    """The exit status: 1 if a cell failed."""
    chosen = next((text for text in given.settings if text.startswith(FLAGS_CHOOSE)), None)
    if chosen is not None:
        raise ConfigError(f"{chosen}: flags choose this here; --help lists them")
    tasks, output = chosen_tasks(given), Path(given.output_dir)
    kinds = (BEST, LAST) if given.checkpoint_type == "all" else (given.checkpoint_type,)
    found, missing = {}, []
    for name, file in tasks.items():
        for seed in given.seeds:
            for kind in kinds:
                paths = Training(int(seed), kind).find(file)
                if paths:
                    found[name, seed, kind] = paths[0]
                else:
                    missing.append(f"{name} train_{seed} {kind}")
    require_some(list(found), list(tasks.values()), [int(seed) for seed in given.seeds])
    failed = []
    for (name, seed, kind), checkpoint in found.items():
        for method in methods_of(given):
            label = f"{name} train_{seed} {kind}, {row_title(method.name, method.steps)}"
            folder = output / method.folder / name / f"seed{seed}_{kind}"
            arguments = ["-c", str(checkpoint), "-d", given.device, "--task", tasks[name].choice]
            arguments += [*(["--skip_video"] if given.skip_video else []), *method.settings, *given.settings]
            cell = Cell(method.name, method.steps, name, seed, kind)
            problem = run_cell(folder, cell, arguments, given.settings, given.force)
            if problem is not None:
                failed.append(label)
                console.print(f"{label} failed: {problem}", style="red", markup=False, soft_wrap=True)
                continue
            rates = ", ".join(f"{row.success_rate:.3f}" for row in cell_rows(cell, folder))
            console.print(f"{label}: {rates}", markup=False, soft_wrap=True)
    write_tables(stored_rows(output, given.settings), output)
    say_end(given, [tasks[name].choice for name in dict.fromkeys(key[0] for key in found)], missing, failed, output)
    return 1 if failed else 0


def run_cell(folder: Path, cell: Cell, arguments: list[str], settings: list[str], force: bool) -> str | None:
    """Evaluates, unless that is done already; returns what went wrong, None if nothing did."""
    record = {"cell": cell.__dict__, "arguments": arguments, "settings": settings}
    if not force and read_record(folder) == record:
        return None
    (folder / RECORD).unlink(missing_ok=True)
    again = ["overwrite=true"] if force else []
    problem = run_apart("eval_command", ["-o", str(folder), *arguments, *again], folder / "log.txt")
    if problem is None:
        write_json(folder / RECORD, record)
    return problem


def say_end(given: argparse.Namespace, choices: list[str], missing: list[str], failed: list[str], output: Path) -> None:
    for title, names in (("no checkpoint here", missing), ("failed", failed)):
        if names:
            console.print(f"{title}: {'; '.join(names)}", style="yellow", markup=False, soft_wrap=True)
    if (output / "results.csv").exists():
        console.print(f"tables: {output}/results.csv, summary.csv, table1.md, table1.tex", soft_wrap=True)
    kinds = "max,avg" if given.checkpoint_type == "all" else given.checkpoint_type
    for method in methods_of(given):
        sweep = ["-m", f"task={','.join(choices)}", f"train={','.join(given.seeds)}", f"checkpoint_type={kinds}"]
        name_command("eval", [*sweep, *method.settings, *given.settings])


if __name__ == "__main__":
    sys.exit(main())
