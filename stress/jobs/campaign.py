"""What kills, races and full disks share: their inputs, and the trials of one job as a task."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from stress.findings import Findings, Row
from stress.jobs.checks import Trial, reference
from stress.jobs.kinds import Job, prepare
from stress.jobs.launch import Launcher
from stress.jobs.server import Server
from stress.workers import Task


@dataclass(frozen=True)
class Stage:
    """Where trials take place, and what they are compared with."""

    job: Job
    launcher: Launcher
    inputs: Path
    folder: Path  # of this part and job
    expected: dict  # the result of the undisturbed run in folder/reference/run
    seconds: float  # that it took

    def start(self, folder: Path, largest_file: int | None = None):
        return self.launcher.start(self.job.script, self.job.arguments(folder, self.inputs), folder, largest_file)


Try = Callable[[Stage, Trial, int, Random], None]  # of trial number so and so, with its own randomness


@contextlib.contextmanager
def inputs_of(scratch: Path) -> Iterator[Path]:
    """The folder that all jobs read, with its server running."""
    inputs = scratch / "inputs"
    if not inputs.exists():
        inputs.mkdir()
        prepare(inputs)
    server = Server(inputs)
    try:
        yield inputs
    finally:
        server.close()


def chosen(jobs: Sequence[Job], words: str, say: Callable[[str], None]) -> list[Job]:
    """Those whose name contains one of the comma-separated words and whose packages are installed."""
    found = []
    for job in jobs:
        missing = [name for name in job.needs if importlib.util.find_spec(name) is None]
        if missing:
            say(f"  not tried: {job.name}, as {missing[0]} is not installed")
        elif not words or any(word in job.name for word in words.split(",")):
            found.append(job)
    return found


def tasks(
    part: str,
    attempt: Try,
    trials: int,
    jobs: Sequence[Job],
    launcher: Launcher,
    seed: int,
    scratch: Path,
    inputs: Path,
    say: Callable[[str], None],
) -> list[Task]:
    """One task per job: `trials` trials of it."""
    folders = {job: scratch / f"{part}-{job.name.replace(' ', '-')}" for job in jobs}
    return [partial(_trials, part, attempt, trials, job, launcher, seed, folders[job], inputs, say) for job in jobs]


def _trials(
    part: str,
    attempt: Try,
    trials: int,
    job: Job,
    launcher: Launcher,
    seed: int,
    folder: Path,
    inputs: Path,
    say: Callable[[str], None],
    findings: Findings,
) -> Row:
    trial = Trial(part, job, seed, findings)
    stage = Stage(job, launcher, inputs, folder, *reference(job, launcher, inputs, folder / "reference" / "run"))
    for number in range(trials):
        attempt(stage, trial, number, Random(f"{part}/{job.name}/{seed}/{number}"))
    notes = [f"{trial.notes.count(note)} {note}" for note in dict.fromkeys(trial.notes)]
    row = trial.row(", ".join([f"{stage.seconds:.1f} s undisturbed", *notes]))
    say(f"  {part}: {job.name}: {row.tried} tried, {row.findings} failed, {row.seconds:.0f} s")
    shutil.rmtree(folder, ignore_errors=True)
    return row
