"""Images of a data file as plain arrays on disk: training reads them at random, without unpacking or holding them."""
from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.console import Console
from rich.progress import Progress

from diffusion_policy.common.files import write_json
from diffusion_policy.dataset.replay_buffer import DatasetError

DESCRIPTION, PROGRESS, LOCK = "cache.json", "progress.json", "lock"
DTYPE = np.dtype(np.uint8)


def cached_images(
    folder: str | Path,
    source: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, int, int]],
    lengths: Sequence[int],
    read: Callable[[int, str], np.ndarray],
) -> dict[str, np.ndarray]:
    """Memory-mapped uint8 images [N, H, W, C] by name, the episodes laid end to end.

    The first call writes them to `folder`, one file each; later ones find them there. It writes to `<folder>.partial`, and
    the next call goes on with what an interrupted one left; `folder` appears complete or not at all. Processes that need
    the same cache at the same time wait for the first of them.

    Args:
        source: what the images come from, for JSON. A cache of another source is written anew, which is said.
        shapes: (H, W, C) of the images.
        lengths: of the episodes.
        read: the images [T, H, W, C] of one episode, by its index and their name.

    Raises:
        DatasetError: there is no space for it.
    """
    folder = Path(folder)
    arrays = {name: (sum(lengths), *shape) for name, shape in shapes.items()}
    key = json.loads(json.dumps({"source": source, "arrays": arrays, "lengths": list(lengths)}))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    images = _open(folder, key, arrays, console)
    partial = folder.with_name(folder.name + ".partial")
    while images is None:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial / LOCK, console):
            images = _open(folder, key, arrays, None)
            # Where another process has finished meanwhile, the lock is no longer there.
            if images is None and (partial / LOCK).exists():
                _write(partial, key, arrays, lengths, read, console)
                write_json(partial / DESCRIPTION, key)
                shutil.rmtree(folder, ignore_errors=True)
                (partial / LOCK).unlink()
                partial.replace(folder)
                (folder / PROGRESS).unlink()
                images = _open(folder, key, arrays, console)
    return images


def _open(
    folder: Path, key: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], console: Console | None
) -> dict[str, np.ndarray] | None:
    """The complete cache in `folder`, or None; says why one that is there is not used."""
    if not folder.is_dir():
        return None
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
        images = {name: np.load(_file(folder, name), mmap_mode="r") for name in arrays} if found == key else None
        if images is not None and all(values.shape == arrays[name] for name, values in images.items()):
            return images
        reason = "belongs to another or a changed data file"
    except (OSError, EOFError, ValueError) as error:
        reason = f"is damaged ({error})"
    if console is not None:
        console.print(f"the cache of images {folder} {reason}: writing it anew")
    return None


def _write(
    partial: Path, key: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], lengths: Sequence[int],
    read: Callable[[int, str], np.ndarray], console: Console,
) -> None:
    """Appends to the files of an earlier call where they belong to the same cache, episode by episode."""
    done = _done(partial, key, arrays, lengths)
    if not done:
        for path in partial.glob("*.npy"):
            path.unlink()
    need = sum(int(np.prod(shape)) for shape in arrays.values())
    free = shutil.disk_usage(partial).free + sum(_file(partial, name).stat().st_size for name in arrays if done)
    if free < need:
        raise DatasetError(f"the cache of images {partial.name.removesuffix('.partial')} needs {need / 1e9:.1f} GB and "
                           f"{partial.parent} has {free / 1e9:.1f} GB left: free some, or name another place with "
                           "task.dataset.cache_dir=<folder>")
    with ExitStack() as stack, Progress(console=console) as bar:
        files = {name: stack.enter_context(open(_file(partial, name), "r+b" if done else "wb")) for name in arrays}
        for name, file in files.items():
            _seek(file, arrays[name], sum(lengths[:done]))
        where = f"writing the images to {partial.name.removesuffix('.partial')}, once"
        job = bar.add_task(where, total=len(lengths), completed=done)
        for episode in range(done, len(lengths)):
            for name, file in files.items():
                images = np.ascontiguousarray(read(episode, name))
                if images.dtype != DTYPE or images.shape != (lengths[episode], *arrays[name][1:]):
                    raise DatasetError(f"images {name!r} of episode {episode} are {images.dtype} {list(images.shape)} "
                                       f"instead of {DTYPE} {[lengths[episode], *arrays[name][1:]]}")
                file.write(images)
                file.flush()
                os.fsync(file.fileno())
            write_json(partial / PROGRESS, {"key": key, "episodes": episode + 1})
            bar.update(job, advance=1)


def _done(partial: Path, key: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], lengths: Sequence[int]) -> int:
    """Episodes that an earlier call has written for the same cache."""
    try:
        progress = json.loads((partial / PROGRESS).read_text())
        done = progress["episodes"] if progress["key"] == key else 0
        sizes = {name: sum(lengths[:done]) * int(np.prod(shape[1:])) for name, shape in arrays.items()}
        return done if all(_file(partial, name).stat().st_size > size for name, size in sizes.items()) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _seek(file: BinaryIO, shape: tuple[int, ...], rows: int) -> None:
    """To the place of row `rows` in an .npy file, behind which nothing is left; writes the header of an empty one."""
    if rows == 0:
        file.truncate(0)
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": shape})
        return
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    end = file.tell() + rows * int(np.prod(shape[1:]))
    file.truncate(end)
    file.seek(end)


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
