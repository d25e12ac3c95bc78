"""Images of a data file as plain arrays on disk: training reads them at random, without unpacking or holding them."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.console import Console
from rich.progress import Progress

from diffusion_policy.common.files import write_json
from diffusion_policy.dataset.replay_buffer import DatasetError

DESCRIPTION, PROGRESS, LOCK = "cache.json", "progress.json", "lock"
DTYPE = np.dtype(np.uint8)
READ_BYTES = 1 << 20


def cached_images(
    folder: str | Path,
    source: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, int, int]],
    lengths: Sequence[int],
    read: Callable[[int, str], np.ndarray],
) -> dict[str, np.ndarray]:
    """Memory-mapped uint8 images [N, H, W, C] by name, the episodes laid end to end.

    The first call writes them to `folder`, one file each; later ones find them there. It writes to `<folder>.partial`,
    and the next call goes on with what an interrupted one left; `folder` appears complete or not at all. Processes that
    need the same cache at the same time wait for the first of them.

    Args:
        source: what the images come from, for JSON. A cache of another source is written anew, which is said.
        shapes: (H, W, C) of the images.
        lengths: of the episodes.
        read: the images [T, H, W, C] of one episode, by its index and their name.

    A cache is used as it is if its files have the size and time of change that were recorded when they were written.
    Where a time differs (a copy, a damage), their checksums are compared; a damaged cache is written anew, which is
    said.

    Raises:
        DatasetError: there is no space for it, or no access.
    """
    folder = Path(folder)
    arrays = {name: (sum(lengths), *shape) for name, shape in shapes.items()}
    key = json.loads(json.dumps({"source": source, "arrays": arrays, "lengths": list(lengths)}))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        return _found_or_written(folder, key, arrays, lengths, read, console)
    except OSError as error:
        raise DatasetError(
            f"cannot write the cache of images {folder} ({error}): free some space, or name another place with "
            "task.dataset.cache_dir=<folder>. The same command goes on where it stopped"
        ) from error


def _found_or_written(
    folder: Path,
    key: Mapping[str, Any],
    arrays: Mapping[str, tuple[int, ...]],
    lengths: Sequence[int],
    read: Callable[[int, str], np.ndarray],
    console: Console,
) -> dict[str, np.ndarray]:
    images = _open(folder, key, arrays, console)
    partial = folder.with_name(folder.name + ".partial")
    while images is None:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial / LOCK, console):
            images = _open(folder, key, arrays, None)
            # Where another process has finished meanwhile, the lock is no longer there.
            if images is None and (partial / LOCK).exists():
                checksums = _write(partial, key, arrays, lengths, read, console)
                write_json(partial / DESCRIPTION, {**key, "files": _files(partial, checksums)})
                _remove(folder)
                (partial / LOCK).unlink()
                partial.replace(folder)
                (folder / PROGRESS).unlink()
                images = _open(folder, key, arrays, console)
    return images


def _open(
    folder: Path, key: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], console: Console | None
) -> dict[str, np.ndarray] | None:
    """The complete cache in `folder`, or None; says why one that is there is not used."""
    if not folder.exists():
        return None
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        recorded = description.pop("files", None)
        if description != key:
            reason = "belongs to another or a changed data file"
        elif not isinstance(recorded, dict) or set(recorded) != set(arrays):
            reason = "is damaged or of an earlier version (it has no checksums)"
        else:
            images = {name: _mapped(_file(folder, name), shape) for name, shape in arrays.items()}
            reason = None if _unchanged(folder, recorded) else _compared(folder, key, recorded)
            if reason is None:
                return images
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"is damaged ({error})"
    if console is not None:
        console.print(f"the cache of images {folder} {reason}: writing it anew")
    return None


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The file as an array on disk; a ValueError unless it is exactly that array."""
    header = _header(shape)
    with open(path, "rb") as file:
        if file.read(len(header)) != header:
            raise ValueError(f"{path.name} is another array")
    if path.stat().st_size != len(header) + math.prod(shape):
        raise ValueError(f"{path.name} is cut short or too long")
    return np.memmap(path, dtype=DTYPE, mode="r", offset=len(header), shape=shape)


def _files(folder: Path, checksums: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """What is recorded of the images' files: time of change and CRC-32 of the content."""
    return {
        name: {"modified_ns": _file(folder, name).stat().st_mtime_ns, "crc32": crc} for name, crc in checksums.items()
    }


def _unchanged(folder: Path, recorded: Mapping[str, Mapping[str, int]]) -> bool:
    return all(_file(folder, name).stat().st_mtime_ns == entry["modified_ns"] for name, entry in recorded.items())


def _compared(folder: Path, key: Mapping[str, Any], recorded: Mapping[str, Mapping[str, int]]) -> str | None:
    """Why files of another time of change are not those that were written, or None; then their times are recorded."""
    before = _files(folder, {name: entry["crc32"] for name, entry in recorded.items()})
    for name, entry in recorded.items():
        if _crc32(_file(folder, name)) != entry["crc32"]:
            return f"is damaged ({name}.npy has another checksum)"
    with suppress(PermissionError):  # of another user: compared again next time
        write_json(folder / DESCRIPTION, {**key, "files": before})
    return None


def _crc32(path: Path, size: int | None = None) -> int:
    """Of the first `size` bytes of a file; None: of all."""
    checksum, left = 0, path.stat().st_size if size is None else size
    with open(path, "rb") as file:
        while left and (content := file.read(min(READ_BYTES, left))):
            checksum, left = zlib.crc32(content, checksum), left - len(content)
    return checksum


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write(
    partial: Path,
    key: Mapping[str, Any],
    arrays: Mapping[str, tuple[int, ...]],
    lengths: Sequence[int],
    read: Callable[[int, str], np.ndarray],
    console: Console,
) -> dict[str, int]:
    """Appends to the files of an earlier call where they belong to the same cache, episode by episode.

    Returns their CRC-32.
    """
    done, checksums = _done(partial, key, arrays, lengths)
    if not done:
        for path in partial.glob("*.npy"):
            path.unlink()
    need = sum(int(np.prod(shape)) for shape in arrays.values())
    free = shutil.disk_usage(partial).free + sum(_file(partial, name).stat().st_size for name in arrays if done)
    if free < need:
        raise DatasetError(
            f"the cache of images {partial.name.removesuffix('.partial')} needs {need / 1e9:.1f} GB and "
            f"{partial.parent} has {free / 1e9:.1f} GB left: free some, or name another place with "
            "task.dataset.cache_dir=<folder>"
        )
    with ExitStack() as stack, Progress(console=console) as bar:
        files = {name: stack.enter_context(open(_file(partial, name), "r+b" if done else "wb")) for name in arrays}
        for name, file in files.items():
            header = _seek(file, arrays[name], sum(lengths[:done]))
            checksums[name] = checksums[name] if done else zlib.crc32(header)
        where = f"writing the images to {partial.name.removesuffix('.partial')}, once"
        job = bar.add_task(where, total=len(lengths), completed=done)
        for episode in range(done, len(lengths)):
            for name, file in files.items():
                images = np.ascontiguousarray(read(episode, name))
                if images.dtype != DTYPE or images.shape != (lengths[episode], *arrays[name][1:]):
                    raise DatasetError(
                        f"images {name!r} of episode {episode} are {images.dtype} {list(images.shape)} "
                        f"instead of {DTYPE} {[lengths[episode], *arrays[name][1:]]}"
                    )
                file.write(images)
                checksums[name] = zlib.crc32(images, checksums[name])
                file.flush()
                os.fsync(file.fileno())
            write_json(partial / PROGRESS, {"key": key, "episodes": episode + 1, "crc32": checksums})
            bar.update(job, advance=1)
    return checksums


def _done(
    partial: Path, key: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], lengths: Sequence[int]
) -> tuple[int, dict[str, int]]:
    """How many episodes an earlier call has written for the same cache, and the CRC-32 of the files so far."""
    try:
        progress = json.loads((partial / PROGRESS).read_text())
        done, checksums = progress["episodes"], progress["crc32"]
        if progress["key"] == key and type(done) is int and 0 < done <= len(lengths) and set(checksums) == set(arrays):
            sizes = {
                name: len(_header(shape)) + sum(lengths[:done]) * math.prod(shape[1:]) for name, shape in arrays.items()
            }
            if all(
                _file(partial, name).stat().st_size >= size and _crc32(_file(partial, name), size) == checksums[name]
                for name, size in sizes.items()
            ):
                return done, checksums
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0, {}  # what cannot be read was not written by a call for the same cache
    return 0, {}


def _header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _seek(file: BinaryIO, shape: tuple[int, ...], rows: int) -> bytes:
    """To the place of row `rows` in an .npy file, behind which nothing is left; writes the header, which it returns."""
    header = _header(shape)
    file.write(header)
    end = len(header) + rows * math.prod(shape[1:])
    file.truncate(end)
    file.seek(end)
    return header


@contextmanager
def _alone(path: Path, console: Console) -> Iterator[None]:
    """Holds a lock that ends with the process."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waiting for another process, which writes {path.parent.name.removesuffix('.partial')}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
