"""Public demonstration data: download that can be resumed, unpacking in one step, and a checksum of the contents."""
from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diffusion_policy.common.files import write_json
from diffusion_policy.dataset.kitchen_files import read_published
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer

# Called with (bytes present, total bytes or None when the server does not say).
Progress = Callable[[int, "int | None"], None]
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30
RECORD = "checksum.json"   # in a data set whose checksum is not published


class NoChecksumError(DatasetError):
    """Data that is readable, but that nothing tells to be the right one."""


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

    def read(self, path: Path) -> Any:
        """The complete contents of the data set at `path`; a DatasetError if it is missing or unreadable."""
        return ReplayBuffer.from_zarr(path, self.keys, image_keys=self.image_keys)

    def digest(self, path: Path, contents: Any) -> str:
        """SHA-256 of the data set at `path`, given what `read` returned for it."""
        return content_sha256(contents, self.keys)


@dataclass(frozen=True)
class FileSource(DataSource):
    """A zip archive of plain files. `keys` are patterns of the names of the files that count for the checksum.

    Attributes:
        reader: reads the folder completely, or raises DatasetError.
    """

    reader: Callable[[Path], Any]

    def read(self, path: Path) -> Any:
        if not Path(path).is_dir():
            raise DatasetError(f"no data set at {path}")
        return self.reader(path)

    def digest(self, path: Path, contents: Any) -> str:
        return files_sha256(path, self.keys)


# No checksum of this archive, nor of anything in it, is published by its authors. Both tasks use it.
KITCHEN = FileSource(
    url="https://diffusion-policy.cs.columbia.edu/data/training/kitchen.zip",  # Chi et al. 2023, the authors' site
    folder="kitchen",
    keys=("*.npy", "*.mjl"),
    sha256=None,
    reader=read_published,
)
PUSHT = DataSource(
    url="https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",  # Chi et al. 2023, the authors' site
    folder="pusht/pusht_cchi_v7_replay.zarr",
    keys=("keypoint", "state", "action"),
    sha256="2815f05737b83283fdd4ef3e8c703772ab00521fffcc8a079485e02ff9b655f3",
)
SOURCES = {
    "pusht_lowdim": PUSHT,
    "pusht_image": replace(PUSHT, keys=("img", "state", "action"), image_keys=("img",),
                           sha256="c5bdadd18ee16f89b92b99b12055c23b637de4462e59be1d8b77f1eacfd1b23f"),
    "kitchen_lowdim_abs": KITCHEN,
    "kitchen_lowdim": KITCHEN,
}


# ---- checksums ----
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
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for path in sorted((path.relative_to(folder).as_posix() for path in found), key=str.encode):
        content = hashlib.sha256()
        with open(folder / path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                content.update(chunk)
        digest.update(f"{content.hexdigest()}  {path}\n".encode())
    return digest.hexdigest()


def known_sha256(path: str | Path, source: DataSource) -> str | None:
    """The published checksum of `source`, else the one that the first download recorded at `path`, else None.

    Raises:
        DatasetError: the record is damaged.
    """
    record = Path(path) / RECORD
    if source.sha256 is not None or not record.exists():
        return source.sha256
    try:
        recorded = json.loads(record.read_text())["sha256"]
        if len(bytes.fromhex(recorded)) != 32:
            raise ValueError("not 64 hexadecimal digits")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DatasetError(f"{record} is damaged ({error}): delete it, and the next download records it again") from error
    return recorded


def verify(path: str | Path, source: DataSource, sha256: str | None = None) -> Any:
    """Reads the data set at `path` completely, compares its checksum and returns its contents (see `DataSource.read`).

    Args:
        sha256: what to compare with, instead of `known_sha256`.

    Raises:
        DatasetError: it is missing, unreadable, or holds something else.
        NoChecksumError: there is no checksum to compare with.
    """
    path = Path(path)
    contents = source.read(path)
    expected = sha256 or known_sha256(path, source)
    found = source.digest(path, contents)
    if expected is None:
        raise NoChecksumError(
            f"{path} is complete (content sha256 {found}), but there is no checksum to compare it with: none is published, "
            f"and no download recorded one in {RECORD}. Give one with sha256=, or record this one by leaving out verify=true"
        )
    if found != expected:
        raise DatasetError(
            f"{path} holds other data than expected (content sha256 {found}, expected {expected}): "
            "it is damaged or of another version"
        )
    return contents


def verify_or_record(path: str | Path, source: DataSource, sha256: str | None = None) -> None:
    """`verify`. Where no checksum is published, the present one is recorded for the next time, if it is not yet."""
    path = Path(path)
    known = known_sha256(path, source)
    expected = sha256 or known
    if expected is None:
        expected = source.digest(path, source.read(path))
    else:
        verify(path, source, expected)
    if source.sha256 is None and expected != known:
        write_json(path / RECORD, {"sha256": expected, "files": list(source.keys)})


# ---- download ----
def fetch(url: str, path: str | Path, on_progress: Progress | None = None) -> None:
    """Downloads `url` to `path`. What an interrupted call received stays in `<path>.part`, and the next call goes on from there.

    The content is not judged here: an archive that changed on the server between two calls fails `verify`.

    Raises:
        DatasetError: the server cannot be reached, refuses, or closes the connection early.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    start = part.stat().st_size if part.exists() else 0
    try:
        done, total = _receive(url, part, start, on_progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond what is already there
            part.replace(path)
            return
        raise DatasetError(f"{url} answered {error.code} {error.reason}: check the address, or try again later") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise DatasetError(
            f"cannot download {url} ({getattr(error, 'reason', error)}). Check the network and, behind a proxy, https_proxy; "
            f"or fetch the file elsewhere and put it at {path}. Running the same command again resumes"
        ) from error
    if total is not None and done != total:
        raise DatasetError(f"{url}: the connection closed after {done:,} of {total:,} bytes; run the same command again to resume")
    part.replace(path)


def _receive(url: str, part: Path, start: int, on_progress: Progress | None) -> tuple[int, int | None]:
    """Appends the rest of `url` to `part`, or starts over when the server ignores the range. Returns (bytes there, total)."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        done = start if response.status == 206 else 0  # 206: partial content; a file:// URL has no status
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        with open(part, "ab" if done else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, total)
    return done, total


def unpack(archive: str | Path, folder: str, target: str | Path) -> None:
    """Extracts `folder` of a zip archive to `target`, an empty place.

    Raises:
        DatasetError: not a zip archive, a damaged one, or one without `folder`.
    """
    target = Path(target)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [name for name in file.namelist() if PurePosixPath(name).is_relative_to(folder)]
            for name in members:
                path = target / PurePosixPath(name).relative_to(folder)
                if name.endswith("/") or ".." in path.parts:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with file.open(name) as source, open(path, "wb") as destination:
                    shutil.copyfileobj(source, destination)  # reading to the end also checks the CRC
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DatasetError(f"{archive} is not a complete zip archive ({error})") from error
    if not members:
        raise DatasetError(f"{archive} has no {folder} in it")


def download(
    source: DataSource,
    data_dir: str | Path,
    url: str | None = None,
    on_progress: Progress | None = None,
    sha256: str | None = None,
) -> Path:
    """Fetches, unpacks and verifies `source`; returns its folder. Data already there is only verified.

    `sha256` is the checksum that the contents must have, instead of the published or recorded one.

    An archive already at `<data_dir>/<name in the URL>` is used instead of the network. It is removed once unpacked.
    The folder appears complete and verified, or not at all.
    """
    data_dir = Path(data_dir)
    folder = data_dir / source.folder
    if folder.exists():
        verify_or_record(folder, source, sha256)
        return folder
    url = url or source.url
    archive = data_dir / PurePosixPath(url).name
    if not archive.exists():
        fetch(url, archive, on_progress)
    # A fixed name, so that what a killed call left behind is cleared by the next one.
    unverified = folder.with_name(f".{folder.name}.unverified")
    shutil.rmtree(unverified, ignore_errors=True)
    try:
        unpack(archive, source.folder, unverified)
        verify_or_record(unverified, source, sha256)
        unverified.replace(folder)
    except DatasetError as error:
        raise DatasetError(f"{error}\nDelete {archive} and run the same command again") from error
    finally:
        shutil.rmtree(unverified, ignore_errors=True)
    archive.unlink()
    return folder
