"""What must hold of a folder whatever happened to the process that wrote there, and running a command to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stress.findings import Finding, Findings, Row
from stress.jobs.kinds import TEMPORARY, Job, differences
from stress.jobs.launch import Launcher, Process
from stress.patience import naps

LINES = 40  # of one screen
LEFT_BEHIND = 15  # seconds in which the processes that a killed command had started end by themselves


@dataclass
class Trial:
    """The row of one job, filled as its trials go by; findings get the command and its output."""

    part: str
    job: Job
    seed: int
    findings: Findings
    tried: int = 0
    failed: int = 0
    begin: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)

    def judge(self, number: int, problems: list[str], process: Process) -> None:
        """Counts trial `number`; each problem becomes a finding."""
        self.tried += 1
        self.failed += bool(problems)
        for problem in problems:
            again = (
                f"python -m stress parts={self.part} kinds={self.job.name.split()[0]} seed={self.seed} (trial {number})"
            )
            self.findings.add(Finding(self.part, self.job.name, "job", problem, process.text()[-3000:], again))

    def row(self, note: str) -> Row:
        return Row(
            self.part,
            self.job.name,
            self.tried,
            self.tried - self.failed,
            self.failed,
            time.monotonic() - self.begin,
            None,
            note,
        )


def reference(job: Job, launcher: Launcher, inputs: Path, folder: Path) -> tuple[dict, float]:
    """The result of an uninterrupted run, and the seconds it takes. Raises RuntimeError if even that fails."""
    folder.mkdir(parents=True)
    process = launcher.start(job.script, job.arguments(folder, inputs), folder)
    if process.wait() != 0:
        raise RuntimeError(f"{job.name} fails undisturbed (exit {process.status}):\n{process.text()[-3000:]}")
    return normal(job, folder), process.seconds


def normal(job: Job, folder: Path) -> dict:
    """The result with the folder's own name taken out."""
    text = json.dumps(job.result(folder), sort_keys=True)
    return json.loads(text.replace(str(folder), "FOLDER"))


def compared(job: Job, folder: Path, expected: dict) -> list[str]:
    """How the finished result differs from an undisturbed one's, leftovers included."""
    try:
        found = normal(job, folder)
    except (ValueError, OSError, KeyError, EOFError) as error:
        return [f"its result cannot be read: {type(error).__name__}: {error}"]
    problems = [f"not as undisturbed: {difference}" for difference in differences(found, expected)[:5]]
    return problems + [f"left behind: {path.relative_to(folder)}" for path in temporaries(folder)]


def temporaries(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if TEMPORARY.search(path.name)]


def half_made(folder: Path) -> list[str]:
    """Files under their final names that are not whole."""
    return [f"half-made: {path.relative_to(folder)}: {problem}" for path, problem in _broken(folder)]


def _broken(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).parts
        if not path.is_file() or any(TEMPORARY.search(part) for part in below):
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":
                for line in path.read_bytes().split(b"\n")[:-1]:  # the last may be cut short; reading it takes it off
                    json.loads(line)
            elif path.suffix == ".npz":
                with np.load(path) as stored:
                    [stored[name] for name in stored.files]
            elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                yield path, "a picture without its end"
            elif path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, "np") as file:
                    [file.get_tensor(name) for name in file.keys()]
        except Exception as error:  # whatever a reader says of half a file
            yield path, f"{type(error).__name__}: {error}"


def left_running(process: Process) -> list[str]:
    """Processes that a killed command had started and that do not end; they are killed."""
    for _ in naps(LEFT_BEHIND):
        if not process.others():
            return []
    others = process.others()
    if others:
        process.kill(True)
    return [f"{len(others)} processes still run {LEFT_BEHIND} s after the command has ended"] if others else []


def one_screen(process: Process) -> list[str]:
    """Whether a command that failed said so in an error of one screen."""
    text = process.text()
    problems = ["it ends with a traceback"] if "Traceback (most recent call last)" in text else []
    if "error:" not in text:
        problems.append("it fails without an error message")
    if len(text.splitlines()) > LINES:
        problems.append(f"its output has {len(text.splitlines())} lines")
    return problems
