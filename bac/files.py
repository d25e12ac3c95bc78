"""Reading files of bounded size and writing files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# A temporary name says which process of which machine writes there: what a killed one left is known by it.
_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
_cleaned: set[Path] = set()  # folders that this process has looked through


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it replaces `path` on success and is removed on failure.

    What was written is on the disk before it gets its name. What killed processes of this machine left is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent.resolve())
    part = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield part
        _to_disk(part)
        os.replace(part, path)
        with contextlib.suppress(OSError):  # file systems that cannot do it for folders; the file is whole either way
            _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Once per process and folder."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    for part in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(part.name)
        if match and match["host"] == _host() and not _is_running(int(match["pid"])) and part.is_file():
            with contextlib.suppress(OSError):  # gone by now, or another user's: it disturbs nobody
                part.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_limited(path: str | Path, limit: int) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file of at most `limit` bytes for reading; yields (file, its size).

    A pipe or device is refused instead of being waited for.

    Raises:
        ValueError: it is no regular file, or larger than `limit`; the message names neither path nor remedy.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_size > limit:
            raise ValueError(f"{status.st_size:,} bytes; at most {limit:,} are read")
        yield file, status.st_size


def read_limited(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file; see `open_limited`."""
    with open_limited(path, limit) as (file, _):
        data = file.read(limit + 1)
    if len(data) > limit:  # it grew while it was read
        raise ValueError(f"more than {limit:,} bytes")
    return data


def write_atomic(path: str | Path, data: bytes, mode: int | None = None) -> None:
    """Writes a whole file; `mode`: its permissions, those of the umask when None."""
    with atomic_path(path) as part:
        with open(part, "xb") as file:
            file.write(data)
        if mode is not None:
            os.chmod(part, mode)
