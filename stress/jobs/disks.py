"""Disks that fill up at random points: an error of one screen, nothing lost; the same command ends with room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

from stress.jobs.campaign import Stage
from stress.jobs.checks import Trial, compared, half_made, left_running, one_screen

SIZE = 64 << 20  # bytes of the small file system
PAGE = 4096


def fill(stage: Stage, trial: Trial, number: int, rng: Random) -> None:
    """One run with too little room in a small file system, one with enough."""
    disk = stage.folder / str(number)
    used, _ = _used(stage.folder / "reference" / "run")
    disk.mkdir(parents=True)
    _mount(disk)
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(SIZE - PAGE * (rng.randrange(0, used // PAGE + 1) + 4)))
        _twice(stage, trial, number, disk, None, filler.unlink)
    finally:
        _unmount(disk)


def limit(stage: Stage, trial: Trial, number: int, rng: Random) -> None:
    """The same where no file system may be mounted: files larger than a limit cannot be written, then there is none."""
    disk = stage.folder / str(number)
    _, largest = _used(stage.folder / "reference" / "run")
    disk.mkdir(parents=True)
    _twice(stage, trial, number, disk, rng.randrange(0, largest), lambda: None)
    shutil.rmtree(disk, ignore_errors=True)


def _twice(
    stage: Stage, trial: Trial, number: int, disk: Path, largest_file: int | None, make_room: Callable[[], None]
) -> None:
    """With too little room, and again after `make_room`."""
    folder, job = disk / "run", stage.job
    folder.mkdir()
    failed = process = stage.start(folder, largest_file)
    problems = []
    if process.wait() != 0:
        trial.notes.append("failed for want of room")
        problems = one_screen(process)
    problems += left_running(process) + half_made(folder)
    make_room()
    process = stage.start(folder)
    if process.wait() != 0 and not job.is_done(process):
        problems.append(f"the same command fails where there is room again (exit {process.status})")
        failed = process
    problems += left_running(process)
    trial.judge(number, problems + compared(job, folder, stage.expected), failed)


def can_mount(folder: Path) -> bool:
    folder.mkdir(parents=True)
    try:
        _mount(folder)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    _unmount(folder)
    return True


def _mount(folder: Path) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], check=True, capture_output=True
    )


def _unmount(folder: Path) -> None:
    """Lazily: a process of the last command may still be about to end."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def _used(folder: Path) -> tuple[int, int]:
    """(bytes of all files, in whole pages; bytes of the largest)."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE) * PAGE for size in sizes), max(sizes)
