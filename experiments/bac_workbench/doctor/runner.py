"""Runs every check in a process of its own with a time limit, so that a crash or a hang is one row of the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bac_workbench.doctor.rows import FAIL, Row, first_line, reinstall

# A check finds what this process finds, and not the modules of the current folder.
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from bac_workbench.doctor.child import main; main(*sys.argv[1:3])"
)
TIME_LIMIT = 60.0  # seconds; the native library is compiled within


@dataclass(frozen=True)
class Check:
    """A function `module:function` of this package that returns rows, called with `arguments`.

    Attributes:
        title: item of the row that says that the check itself failed.
        extra: the extra of this project whose packages it imports, "" for the core.
        needed: whether such a failure makes the exit status 1.
    """

    function: str
    title: str
    arguments: tuple[str, ...] = ()
    extra: str = ""
    needed: bool = True


#: in the order of the report
CHECKS = {
    "python": Check("machine:python", "Python"),
    "packages": Check("packages:packages", "packages"),
    "torch": Check("compute:torch_and_gpus", "torch"),
    "cpu": Check("machine:cpu", "processor", needed=False),
    "native": Check("compute:native", "native library"),
    "checkpoints": Check("compute:checkpoints", "bundled policies"),
    "pusht": Check("simulation:simulator", "Push-T", ("pusht",), "pusht"),
    "blockpush": Check("simulation:simulator", "Block Pushing", ("blockpush",), "blockpush"),
    "kitchen": Check("simulation:simulator", "Kitchen", ("kitchen",), "kitchen"),
    "lift": Check("simulation:simulator", "robomimic Lift", ("lift",), "robomimic"),
    "egl": Check("simulation:renderer", "renderer EGL", ("egl",), "kitchen", needed=False),
    "osmesa": Check("simulation:renderer", "renderer OSMesa", ("osmesa",), "kitchen", needed=False),
    "renderer": Check("simulation:renderer", "renderer in use", (), "kitchen"),
    "video": Check("output:video", "video"),
    "wandb": Check("output:weights_and_biases", "wandb", extra="wandb"),
    "write": Check("machine:write_access", "write access"),
    "disk": Check("machine:disk", "disk space"),
    "git": Check("machine:git", "git", needed=False),
}


def run_checks(
    names: Iterable[str], limit: float = TIME_LIMIT, say: Callable[[str], None] = lambda name: None
) -> list[Row]:
    """Rows of the named checks, in the order of `names`.

    Args:
        limit: seconds for each check.
        say: called with the name of a check as it ends.
    """
    names = list(names)
    running: set[subprocess.Popen] = set()

    def one(name: str) -> list[Row]:
        try:
            rows = run_check(name, limit, running)
        except OSError as error:  # no space for its files, or no further process
            rows = [
                Row(CHECKS[name].title, f"could not be checked: {first_line(error)}", FAIL, "", CHECKS[name].needed)
            ]
        say(name)
        return rows

    # Twice the cores: half of a check is waiting for files to be read.
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1))
    try:
        return [row for rows in pool.map(one, names) for row in rows]
    finally:  # also after an interruption, when checks are still running
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            _end(process)


def run_check(name: str, limit: float = TIME_LIMIT, running: set[subprocess.Popen] | None = None) -> list[Row]:
    """Rows of one check; a crash, a hang or an interpreter that does not start is a row, too."""
    check, running = CHECKS[name], set() if running is None else running
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        result, output = Path(folder, "rows.json"), Path(folder, "output.txt")
        with output.open("wb") as stream:
            # A session of its own: whatever the check has started ends with it.
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD, name, str(result), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            running.add(process)
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                again = f"on a slow machine: bac doctor only={name} timeout={2 * limit:g}"
                return [Row(check.title, f"no answer within {limit:g} s", FAIL, again, check.needed)]
            finally:
                _end(process)
                running.discard(process)
        try:
            return [Row(**row) for row in json.loads(result.read_text())]
        except (OSError, ValueError):  # it ended before it wrote its rows
            how = _ending(process.returncode, output.read_text(errors="replace"))
            return [Row(check.title, how, FAIL, reinstall(check.extra), check.needed)]


def _end(process: subprocess.Popen) -> None:
    """Ends the process and whatever is left of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing is left of it
        process.poll()
    process.wait()


def _ending(status: int, output: str) -> str:
    """How a process ended that wrote no rows, with its last line."""
    lines = output.strip().splitlines()
    if status < 0:
        how = f"the process was ended by {signal.Signals(-status).name}"
    else:
        how = f"the process ended with status {status}"
    return f"{how}: {lines[-1][:200]}" if lines else how
