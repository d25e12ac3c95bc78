"""Unpacking the chunks of a zarr array, with no more memory than the array says that they need."""

from __future__ import annotations

import bz2
import zlib

import numpy as np

from diffusion_policy.dataset.zarr_metadata import ArrayFormat, Codec

BLOSC_HEADER = 16
ZSTD_MAGIC = bytes.fromhex("28b52ffd")
CRC32C_BYTES = 4
# What the functions here raise of damaged chunks: numcodecs knows no error of its own.
DAMAGED = (ValueError, RuntimeError, TypeError, OSError, EOFError, MemoryError, zlib.error)


def unpacked(content: bytes, form: ArrayFormat) -> np.ndarray:
    """The numbers of a chunk, of `form.chunks` and `form.dtype`, from what is stored.

    Raises:
        one of `DAMAGED`: `content` is not such a chunk.
    """
    data = content
    for index in reversed(range(len(form.codecs))):
        codec = form.codecs[index]
        if codec.name == "crc32c":
            data = _checked_crc32c(data)
        elif codec.name == "shuffle":
            data = _unshuffled(data, codec.elementsize)
        elif codec.name == "delta":
            _require_size(len(data), form.chunk_bytes)
            data = (
                np.cumsum(np.frombuffer(data, form.dtype), dtype=form.dtype.newbyteorder("="))
                .astype(form.dtype)
                .tobytes()
            )
        elif codec.name != "transpose":
            inner = sum(before.name == "crc32c" for before in form.codecs[:index])
            data = decompressed(codec.name, data, form.chunk_bytes + CRC32C_BYTES * inner)
    _require_size(len(data), form.chunk_bytes)
    values = np.frombuffer(data, form.dtype)
    axes = _axes(form.codecs, len(form.chunks))
    if axes is None:
        return values.reshape(form.chunks, order=form.order)
    return values.reshape([form.chunks[axis] for axis in axes]).transpose(np.argsort(axes))


def decompressed(name: str, data: bytes, size: int) -> bytes:
    """`size` bytes unpacked with a compressor. What would be of another size is refused before it is unpacked."""
    if name in ("zlib", "gzip"):
        return _inflated(zlib.decompressobj(zlib.MAX_WBITS | (16 if name == "gzip" else 0)), data, size)
    if name == "bz2":
        return _inflated(bz2.BZ2Decompressor(), data, size)
    import numcodecs

    if name == "blosc":
        if len(data) < BLOSC_HEADER or int.from_bytes(data[12:16], "little") > len(
            data
        ):  # the library would read beyond
            raise ValueError("it is cut short")
        _require_size(int.from_bytes(data[4:8], "little"), size)
        return numcodecs.blosc.decompress(data)
    if name == "zstd":
        _require_size(_zstd_size(data), size)
        return numcodecs.zstd.decompress(data)
    if name == "lz4":
        _require_size(int.from_bytes(data[:4], "little"), size)
        return numcodecs.lz4.decompress(data)
    raise ValueError(f"no compressor {name}")


def _require_size(size: int | None, expected: int) -> None:
    if size != expected:
        raise ValueError(
            f"it holds {'an unknown number of' if size is None else f'{size:,}'} bytes instead of {expected:,}"
        )


def _inflated(inflate, data: bytes, size: int) -> bytes:
    unpacked = inflate.decompress(data, size + 1)
    if len(unpacked) == size and not inflate.eof:  # what follows is the checksum at most
        unpacked += inflate.decompress(getattr(inflate, "unconsumed_tail", b""), 1)
    if not inflate.eof or len(unpacked) != size:
        raise ValueError("it is cut short" if len(unpacked) < size else f"it holds more than {size:,} bytes")
    return unpacked


def _zstd_size(data: bytes) -> int | None:
    """Unpacked bytes that the header of a frame tells (RFC 8878, 3.1.1.1), or None."""
    if len(data) < 6 or not data.startswith(ZSTD_MAGIC):
        raise ValueError("it is no zstd frame")
    flag, single, dictionary = data[4] >> 6, data[4] >> 5 & 1, data[4] & 3
    n_bytes = (1 if single else 0, 2, 4, 8)[flag]
    if n_bytes == 0:
        return None
    start = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    return int.from_bytes(data[start : start + n_bytes], "little") + (256 if flag == 1 else 0)


def _checked_crc32c(data: bytes) -> bytes:
    from google_crc32c import value

    body = data[:-CRC32C_BYTES]
    if len(data) < CRC32C_BYTES or value(bytes(body)) != int.from_bytes(data[-CRC32C_BYTES:], "little"):
        raise ValueError("its checksum is another one")
    return body


def _unshuffled(data: bytes, elementsize: int) -> bytes:
    if len(data) % elementsize:
        raise ValueError(f"{len(data)} bytes are not elements of {elementsize}")
    return np.frombuffer(data, np.uint8).reshape(elementsize, -1).T.tobytes()


def _axes(codecs: tuple[Codec, ...], n_dimensions: int) -> np.ndarray | None:
    """Order of the axes in which a chunk is stored; None: as they are."""
    axes = np.arange(n_dimensions)
    for codec in codecs:
        if codec.name == "transpose":
            axes = axes[list(codec.axes)]
    return None if (axes == np.arange(n_dimensions)).all() else axes
