"""Putting a data set in its place: file by file, each complete, the ones that describe the others last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from diffusion_policy.common.files import folder_to_disk


def publish(folder: Path, work: Path, write: Callable[[Path], None], parts: Sequence[str]) -> None:
    """Lets `write` write a data set to the folder `work` and moves its files to `folder`.

    A file of the data set before is replaced by the one of its name at once, and removed if there is none. Killed in
    between, the same call puts things right; as long as episodes are only added, what is there can be read all the
    while, since the earlier ones keep their places.

    Args:
        work: a folder on the same disk; what is in it goes.
        parts: files and folders that the data set consists of, those last that describe the others.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write(work)
    folder_to_disk(work)
    written = [path.relative_to(work) for part in parts for path in files_of(work / part)]
    for path in written:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / path, folder / path)
    for part in parts:
        for path in files_of(folder / part):
            if path.relative_to(folder) not in written:
                path.unlink()
    remove_empty(folder, parts)
    shutil.rmtree(work)


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, sorted."""
    if path.is_dir():
        return sorted(below for below in path.rglob("*") if below.is_file())
    return [path] if path.is_file() else []


def remove_empty(folder: Path, parts: Sequence[str]) -> None:
    for part in parts:
        below = sorted((path for path in (folder / part).rglob("*") if path.is_dir()), reverse=True)
        for path in [*below, folder / part]:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
