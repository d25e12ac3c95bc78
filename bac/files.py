"""Reading files of bounded size and writing files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diffusion_policy.common.files import atomic_path


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
