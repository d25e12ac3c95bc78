"""Writing files so that neither a kill nor a crash ever leaves half of one behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A temporary name says which process of which machine writes there: what a killed one left is known by it.
_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
_cleaned: set[Path] = set()  # folders that this process has looked through


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it replaces `path` on success and is removed on failure.

    What was written is on the disk before it gets its name. Temporary files that killed processes of this machine left
    in the folder are removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    temporary = temporary_name(path)
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # file systems that cannot do it for folders; the file is whole either way
            _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: str | Path) -> Path:
    """A name beside `path` that no other call gives, for a file or folder that is not complete yet."""
    path = Path(path)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def leftovers(folder: str | Path) -> list[Path]:
    """Files and folders with a `temporary_name` in `folder` whose process, on this machine, has ended."""
    paths = []
    for path in Path(folder).iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and match["host"] == _host() and not _is_running(int(match["pid"])):
            paths.append(path)
    return paths


def remove_leftovers(folder: Path) -> None:
    """Once per process and folder. Folders among them are left to those who make such."""
    key = folder.resolve()
    if key in _cleaned:
        return
    _cleaned.add(key)
    for path in leftovers(folder):
        with contextlib.suppress(OSError):  # gone by now, or another user's: it disturbs nobody
            path.unlink()


def remove_leftover_folders(path: str | Path) -> None:
    """Removes what killed processes left of the folder `path` under a `temporary_name`."""
    path = Path(path)
    for leftover in leftovers(path.parent) if path.parent.is_dir() else ():
        if leftover.name.startswith(f".{path.name}.") and leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def folder_to_disk(folder: Path) -> None:
    """Waits until every file in `folder` is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _to_disk(path)


def is_temporary(path: Path) -> bool:
    """Whether the name is one of `temporary_name`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def write_json(path: str | Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
