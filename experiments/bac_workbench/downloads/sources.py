"""Where public demonstration data comes from, how it is read, and the checksum of its contents."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from bac_workbench.downloads.fetch import Progress, fetch, file_sha256, name_in
from diffusion_policy.dataset.limits import Budget
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer

RECORD = "checksum.json"  # in a data set whose checksum is not published


@dataclass(frozen=True)
class DataSource:
    """A zip archive with one replay buffer in it.

    Attributes:
        url: the archive.
        folder: path of the data set, inside the archive and below the local data folder.
        keys: arrays under data/ that count for the checksum.
        sha256: checksum of the genuine contents. None if none is published: the first download then records its own in
            `RECORD`, which shows later damage but not whether the download was genuine.
        image_keys: those of `keys` that are read, and count, as uint8 pixel values.
    """

    url: str
    folder: str
    keys: tuple[str, ...]
    sha256: str | None
    image_keys: tuple[str, ...] = field(default=(), kw_only=True)

    def fetch(self, data_dir: Path, url: str, on_progress: Progress | None) -> Path:
        """Downloads the archive, unless it is there already; returns where it is."""
        archive = data_dir / name_in(url)
        if not archive.exists():
            fetch(url, archive, on_progress)
        return archive

    def unpack(self, fetched: Path, target: Path) -> None:
        """Writes the data set to `target`, from what `fetch` returned; a DatasetError if that is damaged."""
        unpack(fetched, self.folder, target)

    def record(self, path: Path) -> Path:
        """Where the checksum of the data set at `path` is recorded if none is published."""
        return Path(path) / RECORD

    def read(self, path: Path) -> Any:
        """The complete contents of the data set at `path`; a DatasetError if it is missing or unreadable."""
        return ReplayBuffer.from_zarr(path, self.keys, image_keys=self.image_keys)

    def digest(self, path: Path, contents: Any) -> str:
        """SHA-256 of the data set at `path`, given what `read` returned for it."""
        return content_sha256(contents, self.keys)

    @property
    def of_files(self) -> bool:
        """Whether `digest` is of the files as they are, so that it can be compared before anything is decoded."""
        return False


@dataclass(frozen=True)
class FileSource(DataSource):
    """A zip archive of plain files. `keys` are patterns of the names of the files that count for the checksum.

    Attributes:
        reader: reads the folder completely, or raises DatasetError.
    """

    reader: Callable[[Path], Any]

    def read(self, path: Path) -> Any:
        if not Path(path).is_dir():
            raise DatasetError(
                f"no data set at {path}: {'it is no folder' if Path(path).exists() else 'nothing is there'}"
            )
        return self.reader(path)

    def digest(self, path: Path, contents: Any = None) -> str:
        return files_sha256(path, self.keys)

    @property
    def of_files(self) -> bool:
        return True


class ArchiveError(DatasetError):
    """An archive that is damaged or not the wanted one: another download may help."""


class WritingError(DatasetError):
    """The archive may be sound, but there is no place for what is in it."""


def unpack(archive: str | Path, folder: str, target: str | Path) -> None:
    """Extracts `folder` of a zip archive to `target`, an empty place.

    Raises:
        ArchiveError: not a zip archive, a damaged one, one without `folder`, or one that holds links or claims more
            than its size can hold. Members outside `folder` are not looked at.
        WritingError: it cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(archive) as file:
            # A name with ".." does not lie in the folder. Only names of the archive are asked, as the target may be
            # ../data.
            members = [
                info
                for info in file.infolist()
                if PurePosixPath(info.filename).is_relative_to(folder)
                and ".." not in PurePosixPath(info.filename).parts
            ]
            if not members:
                raise ArchiveError(f"{archive} has no {folder} in it")
            _require_harmless(archive, members)
            _require_space(target, sum(info.file_size for info in members))
            for info in members:
                path = target / PurePosixPath(info.filename).relative_to(folder)
                (path if info.is_dir() else path.parent).mkdir(parents=True, exist_ok=True)
                if not info.is_dir():
                    # A member never gives more bytes than its entry says, and reading to its end checks the CRC.
                    with _opened(file, info, archive) as source, open(path, "wb") as destination:
                        shutil.copyfileobj(source, destination)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise ArchiveError(f"{archive} is not a complete zip archive ({error})") from error
    except OSError as error:
        raise WritingError(f"cannot unpack {archive} to {target} ({error})") from error


LONGEST_NAME = 1000  # characters, folders included; published archives have 100


def _require_harmless(archive: str | Path, members: list[zipfile.ZipInfo]) -> None:
    budget = Budget(os.path.getsize(archive))
    for info in members:
        if len(info.filename) > LONGEST_NAME:
            raise ArchiveError(
                f"{archive} holds a name of {len(info.filename):,} characters ({info.filename[:80]}...): nothing is "
                "unpacked"
            )
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(
                f"{archive} holds {info.filename!r}, which is a link or no plain file: nothing is unpacked"
            )
        try:
            budget.add(info.filename, info.file_size)
        except DatasetError as error:
            raise ArchiveError(f"{archive}: {error}: nothing is unpacked") from error


def _require_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise WritingError(
            f"{target.parent} has {free / 1e9:.1f} GB left, and {needed / 1e9:.1f} GB are unpacked: free some space, "
            "or use another folder (data_dir=)"
        )


def _opened(file: zipfile.ZipFile, info: zipfile.ZipInfo, archive: str | Path) -> IO[bytes]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise ArchiveError(
            f"{archive}: {info.filename} is encrypted or packed in another way than with deflate: unpack it with "
            "another program, to where this command looks for the data"
        )
    return file.open(info)


def content_sha256(buffer: ReplayBuffer, keys: tuple[str, ...]) -> str:
    """SHA-256 over the decoded numbers, which no repacking, compressor or zarr version changes.

    For every array of `keys` and then `episode_ends`: the line "<name> <dtype> <shape>\\n", such as
    "action <f4 (25650, 2)\\n", followed by its values as little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name, values in [*((key, buffer.data[key]) for key in keys), ("episode_ends", buffer.episode_ends)]:
        values = np.ascontiguousarray(values, dtype=np.asarray(values).dtype.newbyteorder("<"))
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values)
    return digest.hexdigest()


def files_sha256(folder: str | Path, patterns: tuple[str, ...]) -> str:
    """SHA-256 over all files below `folder` whose names match a pattern, whatever archive they came in.

    For each, in the order of their paths, the line "<SHA-256>  <path below folder>\\n", as sha256sum prints it:
    `find * -name '*.npy' -o -name '*.mjl' | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum`.
    """
    folder = Path(folder)
    files = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for path in sorted((path.relative_to(folder).as_posix() for path in files), key=str.encode):
        digest.update(f"{file_sha256(folder / path)}  {path}\n".encode())
    return digest.hexdigest()
