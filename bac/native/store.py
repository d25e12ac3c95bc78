"""Folders that keep compiled libraries: what lies in them is run, so nobody else may have been able to put it there.

A library is two files: `<name>-<hash>.so` and the record `<name>.json`, which holds its SHA-256, what it was made of
and by what. The record is written last. As the library's own name depends on its content, two processes that store one
at the same time stay right. A kernel for a GPU is likewise a `.cubin` and its record.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bac import strict_json
from bac.files import write_atomic
from bac.native import structs
from bac.native.errors import CacheError, DamagedLibrary

FORMAT = "bac-native-library"
MAX_LIBRARY_BYTES = 64 * 2**20
MAX_RECORD_BYTES = 64 * 2**10
_LIBRARY_NAME = re.compile(r"denoiser-[A-Za-z0-9_.+-]{1,120}\.so|kernel-[A-Za-z0-9_.+-]{1,120}\.cubin")


def create(folder: Path, private: bool, advice: str) -> None:
    """Makes a folder that only its owner can write to (private: enter), and parents like it where they are missing.

    Raises:
        CacheError: that is not possible; `advice` says what to do.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists() and not path.is_symlink()]
    try:
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)  # whatever the umask is
            if not private:
                path.chmod(0o755)
    except OSError as error:
        raise CacheError(f"{folder} cannot be created ({error.strerror}): {advice}") from error


@contextlib.contextmanager
def opened(folder: Path, owners: set[int], advice: str) -> Iterator[int]:
    """A descriptor of a folder that belongs to one of `owners` and that nobody else can write to.

    Raises:
        CacheError: it is not such a folder, or cannot be opened; `advice` says what to do.
    """
    try:
        if folder.is_symlink() and folder.lstat().st_uid not in owners | {0}:
            raise CacheError(f"{folder} is a link that another user made, so what it leads to is not used: {advice}")
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"{folder} cannot be opened as a folder ({error.strerror}): {advice}") from error
    try:
        unsafe = _unsafe(os.fstat(descriptor), owners)
        if unsafe:
            raise CacheError(f"{folder} {unsafe}, so that others could put code there: {advice}")
        yield descriptor
    finally:
        os.close(descriptor)


def _unsafe(status: os.stat_result, owners: set[int]) -> str | None:
    if status.st_uid not in owners:
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return (
            f"can be written by others than its owner (mode {stat.S_IMODE(status.st_mode):o}; chmod go-w makes it safe)"
        )
    return None


def _read(name: str, folder: int, owners: set[int], limit: int) -> bytes:
    """A file of an opened folder, which must be a regular one of the owner's, no link.

    Raises:
        FileNotFoundError, DamagedLibrary
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedLibrary(f"{name} cannot be read ({error.strerror})") from error
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):  # which cannot be opened as a file
        os.close(descriptor)
        raise DamagedLibrary(f"{name} is a folder")
    with os.fdopen(descriptor, "rb") as file:
        unsafe = "is not a regular file" if not stat.S_ISREG(status.st_mode) else _unsafe(status, owners)
        if unsafe:
            raise DamagedLibrary(f"{name} {unsafe}")
        if status.st_size > limit:
            raise DamagedLibrary(f"{name} is {status.st_size:,} bytes large")
        try:
            return file.read(limit)
        except OSError as error:
            raise DamagedLibrary(f"{name} cannot be read ({error.strerror})") from error


def read_record(folder: int, name: str, owners: set[int]) -> dict[str, Any] | None:
    """The record `<name>.json` of an opened folder, or None if there is none.

    Raises:
        DamagedLibrary: it is not a record.
    """
    try:
        record = strict_json.loads(_read(f"{name}.json", folder, owners, MAX_RECORD_BYTES))
    except FileNotFoundError:
        return None
    except strict_json.StrictJSONError as error:
        raise DamagedLibrary(f"{name}.json is {error}") from error
    texts = ("library", "sha256", "sources", "machine", "compiler", "processor")
    lists = ("flags", "levels", "needs", "unknown_needs")
    if (
        not isinstance(record, dict)
        or record.get("format") != FORMAT
        or not all(isinstance(record.get(key), str) for key in texts)
        or not all(
            isinstance(record.get(key), list) and all(isinstance(item, str) for item in record[key]) for key in lists
        )
        or not _LIBRARY_NAME.fullmatch(record["library"])
    ):
        raise DamagedLibrary(f"{name}.json is not the record of a native library")
    return record


def read_content(folder: int, record: dict[str, Any], owners: set[int]) -> bytes:
    """What a record of an opened folder was written for.

    Raises:
        DamagedLibrary: it is missing or changed.
    """
    name = record["library"]
    try:
        content = _read(name, folder, owners, MAX_LIBRARY_BYTES)
    except FileNotFoundError as error:
        raise DamagedLibrary(f"{name} is missing") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise DamagedLibrary(f"{name} is not the file that was stored")
    return content


def load(folder: int, path: Path, record: dict[str, Any], owners: set[int]) -> ctypes.CDLL:
    """Loads a recorded library after its content was found to be the recorded one.

    Args:
        folder, path: the opened folder and its name.

    Raises:
        DamagedLibrary: it is missing, changed, cannot be loaded, or does not fit `bac.native.structs`.
    """
    name = record["library"]
    read_content(folder, record, owners)
    # Through the descriptor it is the folder that was checked, whatever its path leads to by now.
    through = Path(f"/proc/self/fd/{folder}")
    try:
        library = ctypes.CDLL(str((through if through.exists() else path) / name))
    except OSError as error:
        raise DamagedLibrary(f"{name} cannot be loaded ({strict_json.short_repr(str(error), 200)})") from error
    check_layout(library, name)
    return library


def check_layout(library: ctypes.CDLL, name: str) -> None:
    """Declares the library's functions.

    Raises:
        DamagedLibrary: it does not lay its structures out as `bac.native.structs` does.
    """
    expected = structs.layout()
    numbers = (ctypes.c_int32 * len(expected))()
    try:
        count = library.bac_layout(numbers, len(expected))
        calls = library.bac_sample, library.bac_encode
        functions = *calls, library.bac_level_usable, library.bac_level_format, library.bac_rate
        library.bac_level_name.restype = ctypes.c_char_p
    except AttributeError as error:
        raise DamagedLibrary(f"{name} is not a native library of this project") from error
    if count != len(expected) or list(numbers) != expected:
        raise DamagedLibrary(f"{name} lays out its structures in another way than this version of the project")
    for function in functions:
        function.restype = ctypes.c_int32
    for call in calls:
        call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32]
    library.bac_rate.argtypes = [
        *[ctypes.c_int32] * 3,
        ctypes.c_int64,
        ctypes.c_int32,
        ctypes.POINTER(ctypes.c_double),
    ]


def write(
    folder: Path,
    name: str,
    content: bytes,
    record: dict[str, Any],
    private: bool,
    advice: str,
    suffix: str = ".so",
) -> dict[str, Any]:
    """Stores a library and its record; returns the record with the library's name and hash.

    A library that another compiler made before stays: another process may be about to load it.

    Raises:
        CacheError: the folder cannot be written.
    """
    digest = hashlib.sha256(content).hexdigest()
    record = {"format": FORMAT, "library": f"{name}-{digest[:16]}{suffix}", "sha256": digest, **record}
    mode = 0o600 if private else 0o644
    try:
        write_atomic(folder / record["library"], content, mode)
        write_atomic(folder / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode(), mode)
    except OSError as error:
        raise CacheError(f"{folder} cannot be written ({error.strerror}): {advice}") from error
    return record
