"""One file from a server: a download that can be resumed, and its checksum."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from diffusion_policy.dataset.replay_buffer import DatasetError

# Called with (bytes present, total bytes or None when the server does not say).
Progress = Callable[[int, "int | None"], None]
CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30
SCHEMES = ("https", "http", "file")


def require_url(url: object) -> str:
    """`url` itself; a DatasetError unless it is an address that can be fetched."""
    try:
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else None
        valid = (
            parts is not None
            and parts.scheme in SCHEMES
            and bool(parts.path if parts.scheme == "file" else parts.hostname)
        )
        valid = valid and (parts.port or True) and url.isprintable() and " " not in url
    except ValueError:  # of a port or host that is none
        valid = False
    if not valid:
        raise DatasetError(f"url={url} is no address of a file: use https://<host>/<path> or file:///<absolute path>")
    return url


def name_in(url: str) -> str:
    """Name of the file at an address, without what follows ? or #."""
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(require_url(url)).path)).name
    if not name or "/" in name or name in (".", ".."):
        raise DatasetError(f"url={url} names no file: its last part must be one, such as data.zip")
    return name


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as sha256sum prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, path: str | Path, on_progress: Progress | None = None, span: range | None = None) -> None:
    """Downloads `url` to `path`. What an interrupted call received stays in `<path>.part`, and the next call goes on
    from there.

    The content is not judged here: an archive that changed on the server between two calls fails `verify`.

    Args:
        span: the bytes to download of it; None: all of them.

    Raises:
        DatasetError: the server cannot be reached, refuses, or closes the connection early.
    """
    path, span = Path(path), span or range(0)
    require_url(url)
    part = path.with_name(path.name + ".part")
    start = _bytes_there(part)
    if span and start >= len(span):
        part.replace(path)
        return
    try:
        done, total = _receive(url, part, start, span, on_progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing lies beyond what is already there
            _accept_complete(url, part, start, error.headers.get("Content-Range") or "")
            part.replace(path)
            return
        raise DatasetError(
            f"{url} answered {error.code} {error.reason}: check the address, or try again later"
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, ValueError) as error:
        raise DatasetError(
            f"cannot download {url} ({getattr(error, 'reason', error)}). Check the network and, behind a proxy, "
            f"https_proxy; or fetch the file elsewhere and put it at {path}. Running the same command again resumes"
        ) from error
    except OSError as error:
        raise DatasetError(
            f"cannot write {part} ({error}): free some space, or use another folder. Running the same command again "
            "resumes"
        ) from error
    if total is not None and done != total:
        if done > total:
            part.unlink()
        raise DatasetError(
            f"{url}: the connection closed after {done:,} of {total:,} bytes; run the same command again to resume"
        )
    part.replace(path)


def _bytes_there(part: Path) -> int:
    """Bytes that an earlier call received."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and not part.is_file():
            raise DatasetError(f"{part} is no plain file: move it away")
        return part.stat().st_size if part.exists() else 0
    except OSError as error:
        raise DatasetError(f"cannot write to {part.parent} ({error}): use another folder") from error


def _accept_complete(url: str, part: Path, start: int, content_range: str) -> None:
    """A server that has nothing behind `start` says how much there is: more than that was not its file."""
    length = re.fullmatch(r"bytes \*/(\d{1,18})", content_range)
    if length and int(length[1]) != start:
        part.unlink()
        raise DatasetError(
            f"{part} had {start:,} bytes and {url} has {int(length[1]):,}: it was of another file and is removed; run "
            "the same command again"
        )


def _receive(url: str, part: Path, start: int, span: range, on_progress: Progress | None) -> tuple[int, int | None]:
    """Appends the rest of `url` to `part`, or starts over when the server ignores the range.

    Returns (bytes there, total).
    """
    requested = f"bytes={span.start + start}-{span.stop - 1 if span else ''}"
    request = urllib.request.Request(url, headers={"Range": requested} if start or span else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if span and response.status != 206:
            raise DatasetError(f"{url}: the server does not send parts of a file")
        done = start if response.status == 206 else 0  # 206: partial content; a file:// URL has no status
        sent = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range") or "")
        if response.status == 206 and sent and int(sent[1]) != span.start + start:
            raise DatasetError(f"{url}: the server sent another part of the file than the one asked for")
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None and re.fullmatch(r"\d{1,18}", length) else None
        with open(part, "ab" if done else "wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, total)
    return done, total
