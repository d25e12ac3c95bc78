"""Reading zarr data sets, from a folder or a zip archive, without anything in them being executed.

The zarr package is not asked: it looks codecs up by the names that a file gives, and among them are some that run code.
What is read here is what `zarr_format` allows, chunk by chunk, and what is wrong is named by its file.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.kinds import require_zarr
from diffusion_policy.dataset.limits import Budget, n_bytes
from diffusion_policy.dataset.zarr_codecs import DAMAGED, unpacked
from diffusion_policy.dataset.zarr_format import array_format, attributes, group_format, read_json
from diffusion_policy.dataset.zarr_metadata import ArrayFormat
from diffusion_policy.dataset.zarr_store import FolderStore, Store, ZipStore

PACKED_OVERHEAD = 1 << 16  # bytes by which a packed chunk may be larger than its contents, besides a tenth of them
N_THREADS = 4
THREADED = (
    1 << 18,
    32 << 20,
)  # bytes of the chunks that several threads unpack: smaller ones gain nothing, larger ones add up
# Turns the rows of a chunk, whose first one has the given number, into those that are kept.
Convert = Callable[[np.ndarray, int], np.ndarray]


class ZarrFile:
    """A zarr group: a folder, or a zip archive of one.

    Args:
        hint: tells how to get a missing data set.

    Raises:
        DatasetError: there is none; the message says what is there instead.
    """

    def __init__(self, path: str | Path, hint: str = ""):
        path = Path(path)
        require_zarr(path, hint)
        self.store: Store = FolderStore(path) if path.is_dir() else ZipStore(path)
        self.budget = Budget()
        if group_format(self.store) is None:
            raise DatasetError(f"{path} is no zarr group (.zgroup or zarr.json). {hint}".strip())

    @property
    def attributes(self) -> dict[str, Any]:
        """Those of the group itself."""
        return attributes(self.store)

    def array_names(self, group: str) -> list[str]:
        """Names of the arrays right in a group."""
        return [
            name
            for name in self.store.folders(group)
            if read_json(self.store, f"{group}/{name}/.zarray") is not None
            or (read_json(self.store, f"{group}/{name}/zarr.json") or {}).get("node_type") == "array"
        ]

    def format(self, name: str) -> ArrayFormat:
        """How an array such as "data/action" is stored; a DatasetError if it is missing or not of an allowed form."""
        form = array_format(self.store, name)
        if form is None:
            parent = name.rpartition("/")[0]
            there = ", ".join(self.store.folders(parent)[:20]) or "nothing"
            group = read_json(self.store, f"{name}/.zgroup") is not None
            what = "is a group where an array should be" if group else f"is not there. In {parent}: {there}"
            raise DatasetError(f"{self.store.where}: {name} {what}")
        return form

    def read(self, name: str, dtype: np.dtype | type | None = None, convert: Convert | None = None) -> np.ndarray:
        """The whole array `name`, in the byte order of this machine.

        Args:
            dtype: of what `convert` returns.
            convert: makes, of the rows of a chunk, those that are kept.

        Raises:
            DatasetError: see `format`; or a chunk is damaged, or the array claims more than is stored.
        """
        form = self.format(name)
        if not form.shape:
            raise DatasetError(f"{self.store.where}: {name} is one number instead of an array with rows")
        kept = np.dtype(dtype) if convert else form.dtype.newbyteorder("=")
        chunks = list(self._chunks(name, form))
        self.budget.add(
            f"{self.store.where}: {name} {list(form.shape)}",
            n_bytes(form.shape, kept.itemsize),
            sum(size for _, _, size in chunks),
        )
        total = int(np.prod([-(-length // chunk) for length, chunk in zip(form.shape, form.chunks)], dtype=object))
        if len(chunks) < total:
            warnings.warn(
                f"{self.store.where}: {total - len(chunks)} of the {total} chunks of {name} are absent and count as "
                f"{form.fill_value}, as zarr defines it. If they are not meant to, get the data set again",
                stacklevel=3,
            )
            values = np.full(form.shape, form.fill_value, dtype=form.dtype if convert is None else kept)
        else:
            values = np.empty(form.shape, dtype=kept)

        def read(chunk: tuple[str, tuple[int, ...], int]) -> None:
            self._read_chunk(f"{name}/{chunk[0]}", chunk[1], form, values, convert)

        if len(chunks) > 1 and THREADED[0] <= form.chunk_bytes <= THREADED[1]:
            with ThreadPoolExecutor(min(N_THREADS, os.cpu_count() or 1)) as pool:
                deque(pool.map(read, chunks), maxlen=0)  # raises what the first failed one raised
        else:
            for chunk in chunks:
                read(chunk)
        return values.astype(kept, copy=False)

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows [n, ...] of the array `name`; only the chunks in which they lie are unpacked.

        Args:
            rows: int [n], each within the array.

        Raises:
            DatasetError: see `read`.
        """
        form, rows = self.format(name), np.asarray(rows)
        if not form.shape or (rows.size and not 0 <= rows.min() <= rows.max() < form.shape[0]):
            raise DatasetError(f"{self.store.where}: {name} {list(form.shape)} has not all of the wanted rows")
        shape = (len(rows), *form.shape[1:])
        length = form.chunks[0]
        wanted = set((rows // length).tolist())
        chunks = [chunk for chunk in self._chunks(name, form) if chunk[1][0] in wanted]
        kept = form.dtype.newbyteorder("=")
        self.budget.add(f"{self.store.where}: {name} {list(shape)}", n_bytes(shape, kept.itemsize))
        values = np.full(shape, form.fill_value, dtype=kept)
        for file, index, _ in chunks:
            chunk = self._unpacked(f"{name}/{file}", form)
            mine = np.flatnonzero(rows // length == index[0])
            here = tuple(
                slice(place * size, min((place + 1) * size, total))
                for place, size, total in zip(index[1:], form.chunks[1:], form.shape[1:])
            )
            inside = tuple(slice(0, part.stop - part.start) for part in here)
            values[(mine, *here)] = chunk[(rows[mine] - index[0] * length, *inside)]
        return values

    def _chunks(self, name: str, form: ArrayFormat) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """(file, place in the grid, stored bytes) of the chunks that are there."""
        number = r"(0|[1-9][0-9]{0,14})"
        pattern = re.compile(re.escape(form.prefix) + re.escape(form.separator).join([number] * len(form.shape)))
        depth = len(form.shape) if form.separator == "/" else 0
        for file, size in self.store.files(name, depth):
            if match := pattern.fullmatch(file):
                index = tuple(map(int, match.groups()))
                if all(place * chunk < length for place, chunk, length in zip(index, form.chunks, form.shape)):
                    yield file, index, size

    def _read_chunk(
        self, file: str, index: tuple[int, ...], form: ArrayFormat, values: np.ndarray, convert: Convert | None
    ) -> None:
        chunk = self._unpacked(file, form)
        starts = [place * length for place, length in zip(index, form.chunks)]
        here = tuple(slice(start, start + length) for start, length in zip(starts, form.chunks))
        part = values[here]
        chunk = chunk[tuple(slice(0, length) for length in part.shape)]
        part[...] = chunk if convert is None else convert(chunk, starts[0])

    def _unpacked(self, file: str, form: ArrayFormat) -> np.ndarray:
        content = self.store.read(file, form.chunk_bytes + form.chunk_bytes // 10 + PACKED_OVERHEAD)
        if content is None:
            raise DatasetError(f"{self.store.where}: {file} is no file")
        try:
            return unpacked(content, form)
        except DAMAGED as error:
            raise DatasetError(f"{self.store.where}: {file} is damaged ({error}): get the data set again") from error
