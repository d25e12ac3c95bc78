"""One file of a large zip archive, downloaded without the rest of it."""

from __future__ import annotations

import io
import re
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from bac_workbench.downloads.fetch import CHUNK_BYTES, TIMEOUT_S, Progress, fetch, file_sha256, name_in
from bac_workbench.downloads.sources import RECORD, ArchiveError, DataSource, WritingError
from diffusion_policy.dataset.limits import Budget
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_files import open_demonstrations

LOCAL_HEADER = 30  # bytes in front of a member's name; the last four of them are two lengths (APPNOTE.TXT, 4.3.7)
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


@dataclass(frozen=True)
class MemberSource(DataSource):
    """A data file of robomimic, `folder`, in an archive with others. Only its own bytes are downloaded.

    What is downloaded, the member as it is packed, lies in "<file>.<checksum in the archive>.<method>".
    """

    keys: tuple[str, ...] = ()
    sha256: str | None = None

    def fetch(self, data_dir: Path, url: str, on_progress: Progress | None) -> Path:
        local = data_dir / name_in(url)
        url = local.resolve().as_uri() if local.exists() else url
        with _seekable(url) as archive:
            info, start = _member(archive, self.folder, url)
            packed = (data_dir / self.folder).with_name(
                f"{PurePosixPath(self.folder).name}.{info.CRC:08x}.{METHODS[info.compress_type]}"
            )
            if not packed.exists():
                span = range(start, start + info.compress_size)
                if url.startswith("file:"):
                    _copy(archive, packed, span)
                else:
                    fetch(url, packed, on_progress, span)
        return packed

    def unpack(self, fetched: Path, target: Path) -> None:
        checksum, method = fetched.name.rsplit(".", 2)[1:]
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if method == "deflated" else None
        crc, budget = 0, Budget(fetched.stat().st_size)
        try:
            with open(fetched, "rb") as source, open(target, "wb") as destination:
                while packed := source.read(CHUNK_BYTES):
                    while packed:  # in pieces: a part of an archive may unpack to a thousand times its size
                        chunk = packed if inflate is None else inflate.decompress(packed, CHUNK_BYTES)
                        packed = b"" if inflate is None else inflate.unconsumed_tail
                        budget.add(str(fetched), len(chunk))
                        crc = zlib.crc32(chunk, crc)
                        destination.write(chunk)
        except zlib.error as error:
            raise ArchiveError(f"{fetched} is damaged ({error})") from error
        except OSError as error:
            raise WritingError(f"cannot unpack {fetched} to {target} ({error})") from error
        if crc != int(checksum, 16):
            raise ArchiveError(f"{fetched} is damaged: its checksum is {crc:08x}")

    def record(self, path: Path) -> Path:
        return Path(path).with_name(f"{PurePosixPath(self.folder).name}.{RECORD}")

    def read(self, path: Path) -> Any:
        with open_demonstrations(path):
            return path

    def digest(self, path: Path, contents: Any = None) -> str:
        return file_sha256(path)

    @property
    def of_files(self) -> bool:
        return True


def _member(archive: BinaryIO, name: str, url: str) -> tuple[zipfile.ZipInfo, int]:
    """Entry of a file in an archive, and where its packed bytes start."""
    try:
        with zipfile.ZipFile(archive) as listing:
            info = listing.getinfo(name)
    except KeyError as error:
        raise DatasetError(f"{url} has no {name} in it") from error
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise DatasetError(f"{url} is not a complete zip archive ({error})") from error
    if not info.compress_size:
        raise DatasetError(f"{url}: {name} is empty")
    if info.compress_type not in METHODS or info.flag_bits & 1:
        raise DatasetError(
            f"{url}: {name} is encrypted or packed in another way than with deflate: get the archive and "
            "unpack it with another program"
        )
    archive.seek(info.header_offset)
    header = archive.read(LOCAL_HEADER)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info, info.header_offset + LOCAL_HEADER + lengths


@contextmanager
def _seekable(url: str) -> Iterator[BinaryIO]:
    """The file at a URL, of which only the parts that are read are transferred."""
    if url.startswith("file:"):
        path = urllib.request.url2pathname(url.removeprefix("file://"))
        try:
            file = open(path, "rb")
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot read {url} ({error}): check the path") from error
        with file:
            yield file
        return
    try:
        yield io.BufferedReader(_RemoteFile(url), CHUNK_BYTES)
    except urllib.error.HTTPError as error:
        raise DatasetError(
            f"{url} answered {error.code} {error.reason}: check the address, or try again later"
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise DatasetError(
            f"cannot download {url} ({getattr(error, 'reason', error)}). Check the network and, behind a proxy, "
            f"https_proxy; or fetch the archive elsewhere and put it below the data folder as {name_in(url)}"
        ) from error


class _RemoteFile(io.RawIOBase):
    """Reads a file on a server in the parts that are asked for."""

    def __init__(self, url: str):
        self.url, self.position = url, 0
        with self._get(0, 1) as response:
            content_range = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
        if not content_range:
            raise DatasetError(
                f"{url}: the server does not send parts of a file. Fetch the archive and put it below the "
                f"data folder as {name_in(url)}"
            )
        self.size = int(content_range[1])

    def _get(self, start: int, stop: int):
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-{stop - 1}"})
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer) -> int:
        stop = min(self.size, self.position + len(buffer))
        if stop <= self.position:
            return 0
        with self._get(self.position, stop) as response:
            content = response.read()
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


def _copy(source: BinaryIO, path: Path, span: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    source.seek(span.start)
    with open(part, "wb") as file:
        left = len(span)
        while left and (chunk := source.read(min(CHUNK_BYTES, left))):
            left -= file.write(chunk)
    part.replace(path)
