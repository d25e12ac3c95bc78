"""Starts the real scripts as processes of their own, and ends them with all that they started."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from stress.patience import naps
from stress.samples import ROOT

TIMEOUT = 300  # seconds for any one command
# What the scripts import; imported once here instead of at every start.
IMPORTED = (
    "torch",
    "hydra",
    "matplotlib.pyplot",
    "diffusers",
    "zarr",
    "bac_workbench.evaluation.evaluate",
    "bac_workbench.benchmark.run",
    "bac_workbench.caching.schedules",
    "bac_workbench.tracking.run",
    "bac_workbench.training.rollouts",
    "bac_workbench.evaluation.comparison",
    "bac_workbench.downloads.checkpoints",
    "bac_workbench.downloads.command",
    "diffusion_policy.workspace.train_workspace",
    "diffusion_policy.demos.collect",
    "bac_workbench.downloads.datasets",
    "bac.figures",
    "bac.native.build",
    "pymunk",
    "pygame",
    "cv2",
)


@dataclass
class Process:
    """A command that was started, the leader of a session of its own."""

    pid: int
    output: Path
    begin: float = field(default_factory=time.monotonic)
    status: int | None = None
    seconds: float = 0.0

    def poll(self) -> int | None:
        """The exit status, -N after signal N, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status, self.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - self.begin
        return self.status

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit status; after `timeout` seconds all is killed, which gives -9."""
        for _ in naps(timeout):
            if self.poll() is not None:
                return self.status
        self.kill(True)
        _, status = os.waitpid(self.pid, 0)
        self.status, self.seconds = os.waitstatus_to_exitcode(status), timeout
        return self.status

    def run_for(self, seconds: float) -> None:
        """Returns after so many seconds, or when it has ended."""
        for _ in naps(seconds):
            if self.poll() is not None:
                return

    def kill(self, whole_group: bool) -> None:
        """SIGKILL for the command, with or without the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(self.pid, signal.SIGKILL)

    def others(self) -> list[int]:
        """Processes of its session that still run, apart from itself."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.pid:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(state[3]) == self.pid and state[0] not in "ZX":
                    found.append(int(entry.name))
        return found

    def text(self) -> str:
        return self.output.read_text(errors="replace")


class Launcher:
    """Starts scripts, as forks of this process or as new interpreters.

    Args:
        forked: this process imports what the scripts import, once; a fork of it then runs the script as `__main__`.
    """

    def __init__(self, scratch: Path, forked: bool):
        self.logs, self.forked, self.count = scratch / "logs", forked, 0
        self.logs.mkdir(parents=True, exist_ok=True)
        for name in IMPORTED if forked else ():
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                importlib.import_module(name)

    def start(self, script: str, arguments: list[str], folder: Path, largest_file: int | None = None) -> Process:
        """Runs scripts/`script` in `folder`.

        Args:
            largest_file: bytes; writing more to one file fails as on a full disk.
        """
        self.count += 1
        output = self.logs / f"{os.getpid()}-{self.count:05d}-{script}.txt"
        if self.forked:
            return self._fork(script, arguments, folder, output, largest_file)
        with open(output, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / script), *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=None if largest_file is None else lambda: _limit(largest_file),
            )
        process.returncode = 0  # `Process` waits for it
        return Process(process.pid, output)

    def _fork(self, script: str, arguments: list[str], folder: Path, output: Path, largest_file: int | None) -> Process:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Process(pid, output)
        status = 1
        try:
            os.setsid()
            os.chdir(folder)
            log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
                os.dup2(source, descriptor)
            if largest_file is not None:
                _limit(largest_file)
            status = _run(ROOT / "scripts" / script, arguments)
        finally:
            os._exit(status)


def _run(script: Path, arguments: list[str]) -> int:
    """The exit status of the interpreter that would run this script."""
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))  # where scripts find what they share
    try:
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 120  # as the interpreter does
    return status


def _limit(largest_file: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
