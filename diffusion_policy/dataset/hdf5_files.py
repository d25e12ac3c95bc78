"""Reading arrays and attributes of HDF5 files of which nothing is known.

A member is looked at before it is followed, and what an array claims before memory is set aside: links and storage that
lead to other files, virtual arrays, types other than numbers, filters that are plug-ins, and shapes that the file
cannot hold are refused.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.limits import LARGEST_CHUNK, MAX_DIMENSIONS, Budget, n_bytes

GZIP, LZF = 1, 32000
FILTERS = {GZIP: "gzip", 2: "shuffle", 3: "fletcher32", LZF: "lzf"}
HEAP = b"GCOL\x01\0\0\0"  # begins a heap of texts; then its size, 8 bytes, and its objects
HEAP_OBJECT = struct.Struct("<HH4xQ")  # number (0: the free rest, with this header), references, bytes
SEARCHED = 256 << 20  # bytes of a file in which such heaps are looked for
LONGEST_TEXT = 1 << 20  # bytes of an attribute
PACKED_OVERHEAD = 1 << 12  # bytes by which a packed chunk may be larger than its contents, besides a tenth of them
DEFLATE_RATIO = 1032  # the largest one that deflate reaches
UNCHECKED = 64 << 20  # bytes that a chunk may unpack to without it being tried first
LONGEST_NAME = 100  # characters shown of a name or text


def members(group: Any) -> list[str]:
    """Names in a group; those that are no text are left out."""
    return [name for name in group if isinstance(name, str)]


def open_group(parent: Any, name: str, where: str | Path) -> Any:
    """The group `name`, "a" or "a/b", below the open group `parent`.

    Raises:
        DatasetError: it is missing, is an array, or lies behind a link.
    """
    h5py = _h5py()
    member = _member(parent, name, where)
    if not isinstance(member, h5py.h5g.GroupID):
        raise DatasetError(f"{where}: {_path(parent, name)} is not a group")
    return h5py.Group(member)


def open_array(parent: Any, name: str, where: str | Path, budget: Budget) -> Any:
    """The array of numbers `name`, "a" or "a/b", below the open group `parent`, to be sliced like a NumPy array.

    Args:
        budget: gets what the array claims; make it with the bytes of the file.

    Raises:
        DatasetError: see `open_group`; or it is not a plain array of numbers, or claims more than the file can hold.
    """
    h5py = _h5py()
    array, what = _member(parent, name, where), f"{where}: {_path(parent, name)}"
    if not isinstance(array, h5py.h5d.DatasetID):
        raise DatasetError(f"{what} is a group where an array should be")
    _require_numbers(array, what)
    created = array.get_create_plist()
    layout = created.get_layout()
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED) or created.get_external_count():
        raise DatasetError(
            f"{what} is stored in other files (a virtual array, or external storage): store its numbers in this file"
        )
    shape, itemsize = array.get_space().get_simple_extent_dims(), array.get_type().get_size()
    if shape is None or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise DatasetError(f"{what} has no rows")
    budget.add(f"{what} {list(shape)}", n_bytes(shape, itemsize))
    if layout == h5py.h5d.CHUNKED:
        _require_sound_chunks(array, created, itemsize, what)
    return h5py.Dataset(array)


def read_text(owner: Any, name: str, where: str | Path) -> str | None:
    """A text attribute of an open group or file; None if it has none of that name.

    Raises:
        DatasetError: it is no text, several, or longer than `LONGEST_TEXT`.
    """
    h5py = _h5py()
    if name not in owner.attrs:
        return None
    attribute = h5py.h5a.open(owner.id, name.encode())
    kind, what = attribute.get_type(), f"{where}: attribute {name} of {owner.name}"
    if kind.get_class() != h5py.h5t.STRING or attribute.get_space().get_simple_extent_npoints() != 1:
        raise DatasetError(f"{what} is not a text")
    if not kind.is_variable_str() and kind.get_size() > LONGEST_TEXT:
        raise DatasetError(f"{what} claims {kind.get_size():,} bytes, and at most {LONGEST_TEXT:,} are read")
    if kind.is_variable_str():  # HDF5 keeps such a text in a heap
        _require_sound_heaps(where)
    value = owner.attrs[name]
    value = value.item() if isinstance(value, np.ndarray) else value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > LONGEST_TEXT:
        raise DatasetError(f"{what} has {len(text):,} characters, and at most {LONGEST_TEXT:,} are read")
    return text


def _require_sound_heaps(path: str | Path) -> None:
    """HDF5 never comes to the end of a heap with an object of no size, which a damaged file may hold."""
    with open(path, "rb") as file:
        content = file.read(SEARCHED)
    at = content.find(HEAP)
    while at >= 0:
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        place, end = at + 16, min(at + size, len(content))
        while place + HEAP_OBJECT.size <= end:
            index, _, length = HEAP_OBJECT.unpack_from(content, place)
            step = length if index == 0 else HEAP_OBJECT.size + -(-length // 8) * 8
            if step < HEAP_OBJECT.size or step > size:
                raise DatasetError(f"{path}: its heap of texts at byte {at:,} is damaged")
            place += step
        at = content.find(HEAP, at + 1)


def _h5py() -> Any:
    import h5py  # the caller has opened the file with it

    return h5py


def _path(parent: Any, name: str) -> str:
    return f"{(parent.name or '').strip('/')}/{name}".strip("/")[:LONGEST_NAME]


def _member(parent: Any, name: str, where: str | Path) -> Any:
    """Identifier of a member. Only hard links are followed: others may lead to other files."""
    h5py = _h5py()
    member = parent.id
    for part in name.split("/"):
        try:
            link = member.links.get_info(part.encode()) if isinstance(member, h5py.h5g.GroupID) else None
        except (KeyError, RuntimeError) as error:
            raise DatasetError(f"{where} has no {_path(parent, name)} ({error})") from error
        if link is None:
            raise DatasetError(f"{where}: {_path(parent, name)} leads through an array")
        if link.type != h5py.h5l.TYPE_HARD:
            raise DatasetError(
                f"{where}: {_path(parent, name)} is a link, which may lead to another file: copy the data into this one"
            )
        member = h5py.h5o.open(member, part.encode())
    return member


def _require_numbers(array: Any, what: str) -> None:
    h5py = _h5py()
    kind = array.get_type()
    number = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) or (
        kind.get_class() == h5py.h5t.ENUM and kind.get_size() == 1 and kind.dtype == np.dtype(bool)
    )
    if not number or kind.get_size() > 8:
        raise DatasetError(
            f"{what} does not hold plain numbers (but text, records, references or objects): store numbers"
        )


def _require_sound_chunks(array: Any, created: Any, itemsize: int, what: str) -> None:
    """Each chunk unpacks to what it should. HDF5 itself unpacks as far as there is memory."""
    filters = [created.get_filter(index)[0] for index in range(created.get_nfilters())]
    unknown = [f"number {code}" for code in filters if code not in FILTERS]
    if unknown or (GZIP in filters and LZF in filters) or len(set(filters)) < len(filters):
        raise DatasetError(
            f"{what} is packed with {', '.join(unknown) or 'several compressors'}, and only "
            f"{', '.join(FILTERS.values())} are read: store it anew"
        )
    chunk_bytes = n_bytes(created.get_chunk(), itemsize)
    if chunk_bytes > LARGEST_CHUNK:
        raise DatasetError(
            f"{what} has chunks of {chunk_bytes:,} bytes, and at most {LARGEST_CHUNK:,} are read: use smaller ones"
        )
    if not filters:
        return
    limit, suspicious = chunk_bytes + chunk_bytes // 10 + PACKED_OVERHEAD, []

    def look(chunk: Any) -> None:
        if chunk.size > limit:
            raise DatasetError(f"{what}: a chunk of {chunk_bytes:,} bytes is packed into {chunk.size:,}: it is damaged")
        if GZIP in filters and chunk.size * DEFLATE_RATIO > max(UNCHECKED, 2 * chunk_bytes):
            suspicious.append(chunk)

    array.chunk_iter(look)
    for chunk in suspicious:
        mask, packed = array.read_direct_chunk(chunk.chunk_offset)
        if (
            not mask >> filters.index(GZIP) & 1
            and len(zlib.decompressobj().decompress(packed, chunk_bytes + 1)) > chunk_bytes
        ):
            raise DatasetError(
                f"{what}: a chunk unpacks to more than its {chunk_bytes:,} bytes: it is damaged or hostile"
            )
