"""The files of a zarr data set, in a folder or in a zip archive, under names such as "data/action/.zarray".

Both stores refuse what leads out of the data set, what is no plain file, and files larger than the reader asks for. A
store never interprets what it reads.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from diffusion_policy.dataset.errors import DatasetError

ROOT_FILES = (".zgroup", "zarr.json")
FIRST_READ = 1 << 20  # bytes; most files end before
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for any amount of memory


class Store(Protocol):
    """Read access to the files of a data set. Names have "/" between their parts and none before the first."""

    where: str  # for messages

    def read(self, name: str, limit: int) -> bytes | None:
        """Content of a file of at most `limit` bytes; None if there is none of that name."""

    def files(self, folder: str, depth: int) -> Iterator[tuple[str, int]]:
        """(name below `folder`, stored bytes) of the files at most `depth` folders below `folder`, in any order."""

    def folders(self, folder: str) -> list[str]:
        """Names of the folders right below `folder`."""


class FolderStore:
    """A data set in a folder, which may itself be a symbolic link."""

    def __init__(self, path: str | Path):
        self.where = str(path)
        self._root = os.path.realpath(path)
        self._inside: set[str] = set()  # folders and links that were looked at

    def read(self, name: str, limit: int) -> bytes | None:
        path = os.path.join(self._root, name)
        try:
            self._require_inside(os.path.dirname(name))
            with open(self._descriptor(name, path), "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise DatasetError(
                        f"{self.where}: {name} is not a plain file: remove it, or get the data set again"
                    )
                content = _read(file, limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise DatasetError(
                    f"{self.where}: {name} is a symbolic link that leads nowhere: get the data set again"
                ) from None
            return None
        except (OSError, ValueError) as error:  # ValueError: of a name that no file has
            raise DatasetError(f"{self.where}: cannot read {name} ({error})") from error
        return _of_limited_size(self.where, name, content, limit)

    def _descriptor(self, name: str, path: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK  # a pipe would wait for its writer
        try:
            return os.open(path, flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        self._require_inside(name)  # a symbolic link
        return os.open(path, flags)

    def _require_inside(self, name: str) -> None:
        if name in self._inside:
            return
        target = os.path.realpath(os.path.join(self._root, name))
        if os.path.commonpath([target, self._root]) != self._root:
            raise DatasetError(
                f"{self.where}: {name} leads out of the data set, to {target}: copy the data into it instead"
            )
        self._inside.add(name)

    def files(self, folder: str, depth: int) -> Iterator[tuple[str, int]]:
        yield from self._files(folder, "", depth)

    def _files(self, folder: str, below: str, depth: int) -> Iterator[tuple[str, int]]:
        for entry in self._entries(f"{folder}/{below}".rstrip("/")):
            if entry.is_dir():
                if depth:
                    yield from self._files(folder, f"{below}{entry.name}/", depth - 1)
            elif entry.is_file():
                yield below + entry.name, entry.stat().st_size
            else:
                raise DatasetError(
                    f"{self.where}: {folder}/{below}{entry.name} is not a plain file: get the data set again"
                )

    def folders(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in self._entries(folder) if entry.is_dir())

    def _entries(self, folder: str) -> list[os.DirEntry]:
        self._require_inside(folder)
        try:
            with os.scandir(os.path.join(self._root, folder)) as scan:
                entries = list(scan)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise DatasetError(f"{self.where}: cannot read {folder} ({error})") from error
        for entry in entries:
            if entry.is_symlink():
                self._require_inside(f"{folder}/{entry.name}")
        return entries


class ZipStore:
    """A data set in a zip archive, at its top or in one of its folders. Nothing is unpacked to the disk.

    Raises:
        DatasetError: it is no zip archive, or holds no zarr group, or several that do not lie in one another.
    """

    def __init__(self, path: str | Path):
        self.where = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DatasetError(f"{path} is not a complete zip archive ({error}): get it again") from error
        self._root = _root(self._zip.namelist(), path)
        self._members = {
            info.filename.removeprefix(self._root): info
            for info in self._zip.infolist()
            if info.filename.startswith(self._root) and not info.filename.endswith("/")
        }
        for name, info in self._members.items():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DatasetError(f"{path}: {name} is a symbolic link: pack the data set without links")

    def read(self, name: str, limit: int) -> bytes | None:
        info = self._members.get(name)
        if info is None:
            return None
        if info.compress_type not in ZIP_METHODS or info.flag_bits & 1:
            raise DatasetError(
                f"{self.where}: {name} is encrypted or packed in another way than with deflate: unpack the "
                "archive with another program, and read the folder"
            )
        if info.file_size > limit:
            raise DatasetError(_too_large(self.where, name, limit))
        try:
            with self._zip.open(info) as file:  # reading to the end also checks the CRC
                content = file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise DatasetError(f"{self.where}: {name} is damaged ({error}): get the archive again") from error
        return _of_limited_size(self.where, name, content, limit)

    def files(self, folder: str, depth: int) -> Iterator[tuple[str, int]]:
        start = f"{folder}/"
        for name, info in self._members.items():
            if name.startswith(start) and name.count("/", len(start)) <= depth:
                yield name[len(start) :], info.compress_size

    def folders(self, folder: str) -> list[str]:
        start = f"{folder}/"
        return sorted(
            {
                name[len(start) :].partition("/")[0]
                for name in self._members
                if name.startswith(start) and "/" in name[len(start) :]
            }
        )


def _root(names: list[str], path: str | Path) -> str:
    """Where in the archive the zarr group lies: "" or "folder/"."""
    roots = sorted(
        {name[: -len(file)] for name in names for file in ROOT_FILES if name == file or name.endswith(f"/{file}")},
        key=len,
    )
    if not roots:
        raise DatasetError(f"{path} is a zip archive without a zarr group in it (.zgroup or zarr.json)")
    outermost = [root for root in roots if not any(root != other and root.startswith(other) for other in roots)]
    if len(outermost) > 1:
        raise DatasetError(
            f"{path} holds several zarr groups ({', '.join(outermost[:5])}): unpack it, and read one of them"
        )
    return outermost[0]


def _read(file: BinaryIO, limit: int) -> bytes:
    content = file.read(min(limit, FIRST_READ))
    if len(content) < FIRST_READ:
        return content
    parts, left = [content], limit - len(content)
    while left and (part := file.read(min(left, FIRST_READ))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _of_limited_size(where: str, name: str, content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise DatasetError(_too_large(where, name, limit))
    return content


def _too_large(where: str, name: str, limit: int) -> str:
    return f"{where}: {name} has more than the {limit:,} bytes that it can need: it is damaged, get the data set again"
