"""Which tasks of the released project a batch runs over, and a process of its own for each piece of work."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bac_workbench.released.names import BLOCK_PUSHING, KITCHEN, LOW_DIM, MH, PH, TASKS, file_of
from bac_workbench.released.options import Flags, several
from bac_workbench.setup.task_files import TaskFile
from diffusion_policy.common.config import ConfigError

#: flag -> its tasks
GROUPS = {"ph_only": PH, "mh_only": MH, "lowdim_only": LOW_DIM, "bp_only": BLOCK_PUSHING, "kitchen_only": KITCHEN}


def add_groups(parser: Flags) -> None:
    """The flags that choose tasks; without them all are run."""
    chosen = parser.add_mutually_exclusive_group()
    for name, tasks in GROUPS.items():
        chosen.add_argument(f"--{name}", action="store_true", help=f"only {', '.join(tasks)}")
    chosen.add_argument("--task", type=several(str), help="only these, comma-separated")


def chosen_tasks(given: argparse.Namespace) -> dict[str, TaskFile]:
    """Released name -> task.

    Raises:
        ConfigError: one is unknown.
    """
    group = next((tasks for name, tasks in GROUPS.items() if getattr(given, name)), TASKS)
    return {name: file_of(name) for name in given.task or group}


def folders_line(files: Sequence[TaskFile], trains: Sequence[int]) -> str:
    """Where checkpoints of these tasks are looked for, for people."""
    places = [str(folder.parents[1]) for file in files for folder in file.folders(train=trains[0])]
    return ", ".join(places[:4]) + (", ..." if len(places) > 4 else "")


def require_some(found: Sequence[object], files: Sequence[TaskFile], trains: Sequence[int]) -> None:
    if not found:
        raise ConfigError(
            f"none of these tasks has a checkpoint here (looked in {folders_line(files, trains)}): put them there, or "
            f"get one with bac checkpoint download task={files[0].choice}"
        )


def run_apart(module: str, arguments: Sequence[str], log: Path) -> str | None:
    """Runs a released command in a process of its own, which may fail without harm to the others.

    Args:
        module: of this package.
        log: takes all that it prints.

    Returns:
        What it said last; None: it succeeded.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.run(
            [sys.executable, "-m", f"bac_workbench.released.{module}", *arguments], stdout=output, stderr=output
        )
    if process.returncode == 0:
        return None
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    said = next((line for line in reversed(lines) if line.startswith("error:")), last)
    return f"{said} (exit status {process.returncode}, {log})"
