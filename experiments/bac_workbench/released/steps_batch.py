"""Schedules of all tasks whose checkpoints are here; the others are listed.

    ./shs/get_steps/get_optimal_steps.sh --device cuda:0 --num_caches 5 \\
      [--ph_only|--mh_only|--lowdim_only|--task can_ph]

Each task is done in a process of its own, from its best checkpoint of the first training that is here, into
assets/<task>/; one that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bac_workbench.console import console, readable_errors
from bac_workbench.released.options import Flags, metric, name_command, several, whole
from bac_workbench.released.selection import add_groups, chosen_tasks, require_some, run_apart
from bac_workbench.setup.task_files import TaskFile
from bac_workbench.setup.trainings import BEST, LAST, Training

TRAINS = (0, 1, 2)


def flags() -> Flags:
    parser = Flags("get_optimal_steps.sh", __doc__ or "")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: auto)")
    parser.add_argument(
        "--num_caches", type=several(whole(1, "number of updates")), default=[10], help="such as 5,8,10 (default: 10)"
    )
    parser.add_argument(
        "--metrics", type=several(metric), default=["cosine"], help="such as cosine,l1 (default: cosine)"
    )
    add_groups(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--force_recompute", action="store_true", help="measure again and replace what is there")
    again.add_argument("--no_force", action="store_true", help="keep profiles that are there, as is usual here")
    parser.add_argument("--debug", action="store_true", help="only list what would be done")
    parser.settings_of("profile_blocks")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    with readable_errors():
        return write_all(flags().read(sys.argv[1:] if arguments is None else arguments))


def write_all(given: argparse.Namespace) -> int:
    """The exit status: 1 if a task failed."""
    tasks = chosen_tasks(given)
    found = {name: path for name, file in tasks.items() if (path := first_checkpoint(file)) is not None}
    for name in tasks.keys() - found.keys():
        console.print(f"{name}: no checkpoint here", style="yellow")
    require_some(list(found), list(tasks.values()), TRAINS)
    failed = 0
    for name, checkpoint in found.items():
        root = Path("assets", name)
        console.print(f"{name}: {checkpoint} -> {root}", soft_wrap=True)
        if given.debug:
            continue
        arguments = ["-c", str(checkpoint), "-o", str(root), "-d", given.device, "--task", tasks[name].choice]
        arguments += ["--num_caches", ",".join(map(str, given.num_caches)), "--metrics", ",".join(given.metrics)]
        arguments += ["--force_recompute"] if given.force_recompute else []
        problem = run_apart("steps_command", [*arguments, *given.settings], root / "get_optimal_steps.log")
        if problem is not None:
            failed += 1
            console.print(f"{name} failed: {problem}", style="red", markup=False, soft_wrap=True)
    console.print(f"{len(found) - failed} of {len(tasks)} tasks done, {failed} failed")
    names = ",".join(tasks[name].choice for name in found)
    schedules = ",".join(f"bac_s{budget}" for budget in given.num_caches)
    name_command("profile_blocks", ["-m", f"task={names}", f"schedules=[{schedules}]", *given.settings])
    return 1 if failed else 0


def first_checkpoint(file: TaskFile) -> Path | None:
    """The best checkpoint of the first training that is here, or else its last one."""
    for train in TRAINS:
        for kind in (BEST, LAST):
            if found := Training(train, kind).find(file):
                return found[0]
    return None


if __name__ == "__main__":
    sys.exit(main())
