"""What the metadata of one zarr array say, in storage format 2 or 3, as far as it is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.dataset.limits import MAX_DIMENSIONS, n_bytes

CONVERT = "store it anew as numbers packed with blosc, zstd or gzip"
LONGEST_AXIS = 2**48
COMPRESSORS_2 = ("blosc", "zstd", "lz4", "zlib", "gzip", "bz2")
COMPRESSORS_3 = ("blosc", "zstd", "gzip")
DTYPE_2 = re.compile(r"\|b1|[|<>][iu]1|[<>][iu][248]|[<>]f[248]")
DTYPE_3 = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
KEYS_3 = {
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "codecs",
    "fill_value",
    "attributes",
    "dimension_names",
    "storage_transformers",
    "consolidated_metadata",
}


@dataclass(frozen=True)
class Codec:
    """One step of packing: "delta", "shuffle", "transpose", "crc32c" or one of the compressors."""

    name: str
    elementsize: int = 1  # of shuffle
    axes: tuple[int, ...] = ()  # of transpose


@dataclass(frozen=True)
class ArrayFormat:
    """How an array is stored.

    Attributes:
        dtype: as stored, with its byte order.
        order: "C" or "F", of the numbers in a chunk.
        prefix: of the names of chunks.
        codecs: in the order in which they packed.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill_value: Any
    order: str
    prefix: str
    separator: str
    codecs: tuple[Codec, ...]

    @property
    def chunk_bytes(self) -> int:
        return n_bytes(self.chunks, self.dtype.itemsize)


class RefusedMetadata(ValueError):
    """What the metadata ask for; ends "<file> asks for ..."."""


# ---- storage format 2 ----
def version_2(metadata: Mapping[str, Any]) -> ArrayFormat:
    _require(metadata.get("zarr_format") == 2, f"the storage format {_short(metadata.get('zarr_format'))} instead of 2")
    dtype = metadata.get("dtype")
    _require(
        isinstance(dtype, str) and DTYPE_2.fullmatch(dtype),
        f"the type {_short(dtype)}, which is no number and could run code: {CONVERT}",
    )
    dtype = np.dtype(dtype)
    shape, chunks = _lengths(metadata, "shape", 0), _lengths(metadata, "chunks", 1)
    compressor, filters = metadata.get("compressor"), metadata.get("filters")
    _require(filters is None or isinstance(filters, list), f"the filters {_short(filters)}, which are no list")
    codecs = [_filter_2(configuration, dtype) for configuration in filters or ()]
    if compressor is not None:
        name = compressor.get("id") if isinstance(compressor, dict) else compressor
        _require(name in COMPRESSORS_2, _unknown_codec(name))
        codecs.append(Codec(name))
    order, separator = metadata.get("order"), metadata.get("dimension_separator", ".")
    _require(order in ("C", "F"), f"the order {_short(order)} instead of C or F")
    return ArrayFormat(
        shape,
        _as_many(chunks, shape),
        dtype,
        _fill_value(metadata.get("fill_value"), dtype),
        order,
        "",
        _separator(separator),
        tuple(codecs),
    )


def _filter_2(configuration: Any, dtype: np.dtype) -> Codec:
    name = configuration.get("id") if isinstance(configuration, dict) else configuration
    if name == "shuffle":
        size = configuration.get("elementsize", 4)
        _require(type(size) is int and 1 <= size <= 256, f"a shuffle of elements of {_short(size)} bytes")
        return Codec("shuffle", elementsize=size)
    _require(name == "delta", _unknown_codec(name))
    for key, default in (("dtype", None), ("astype", dtype.str)):
        kind = configuration.get(key, default)
        _require(
            dtype.kind != "b" and isinstance(kind, str) and DTYPE_2.fullmatch(kind) and np.dtype(kind) == dtype,
            f"differences of the type {_short(kind)} of an array of {dtype.str}: {CONVERT}",
        )
    return Codec("delta")


# ---- storage format 3 ----
def version_3(metadata: Mapping[str, Any]) -> ArrayFormat:
    _require(metadata.get("zarr_format") == 3, f"the storage format {_short(metadata.get('zarr_format'))} instead of 3")
    _require(
        metadata.get("node_type") == "array", f"the node {_short(metadata.get('node_type'))} where an array should be"
    )
    unknown = [
        key
        for key in metadata
        if key not in KEYS_3 and not (isinstance(metadata[key], dict) and metadata[key].get("must_understand") is False)
    ]
    _require(not unknown, f"what is not understood here, {_short(unknown)}")
    _require(metadata.get("storage_transformers") in (None, []), "storage transformers, which are not read here")
    kind = metadata.get("data_type")
    _require(
        isinstance(kind, str) and DTYPE_3.fullmatch(kind),
        f"the type {_short(kind)}, which is no number and could run code: {CONVERT}",
    )
    shape = _lengths(metadata, "shape", 0)
    grid, keys = _named(metadata.get("chunk_grid")), _named(metadata.get("chunk_key_encoding"))
    _require(grid[0] == "regular", f"the chunk grid {_short(grid[0])} instead of a regular one")
    _require(keys[0] in ("default", "v2"), f"the chunk names {_short(keys[0])}")
    chunks = _as_many(_lengths(grid[1], "chunk_shape", 1), shape)
    dtype, codecs = _codecs_3(metadata.get("codecs"), np.dtype(kind), len(shape))
    separator = _separator(keys[1].get("separator", "/" if keys[0] == "default" else "."))
    return ArrayFormat(
        shape,
        chunks,
        dtype,
        _fill_value(metadata.get("fill_value"), dtype),
        "C",
        f"c{separator}" if keys[0] == "default" else "",
        separator,
        codecs,
    )


def _codecs_3(listed: Any, dtype: np.dtype, n_dimensions: int) -> tuple[np.dtype, tuple[Codec, ...]]:
    _require(isinstance(listed, list), f"the codecs {_short(listed)}, which are no list")
    codecs, as_bytes = [], False
    for name, configuration in map(_named, listed):
        if name == "bytes" and not as_bytes:
            endian, as_bytes = configuration.get("endian", "little"), True
            _require(endian in ("little", "big"), f"the byte order {_short(endian)}")
            dtype = dtype.newbyteorder("<" if endian == "little" else ">")
        elif name == "transpose" and not as_bytes:
            axes = configuration.get("order")
            _require(
                isinstance(axes, list)
                and all(type(axis) is int for axis in axes)
                and sorted(axes) == list(range(n_dimensions)),
                f"the order of axes {_short(axes)}",
            )
            codecs.append(Codec("transpose", axes=tuple(axes)))
        elif name == "sharding_indexed":
            raise RefusedMetadata(f"shards, which are not read here: {CONVERT}, without shards")
        else:
            _require(as_bytes and (name == "crc32c" or name in COMPRESSORS_3), _unknown_codec(name))
            codecs.append(Codec(name))
    _require(as_bytes, "codecs without the codec 'bytes'")
    packing = [codec.name for codec in codecs if codec.name in COMPRESSORS_3]
    _require(len(packing) <= 1, f"several compressors, {_short(packing)}: {CONVERT}")
    return dtype, tuple(codecs)


def _named(value: Any) -> tuple[Any, Mapping[str, Any]]:
    """Name and configuration of an extension, which is an object or its name alone."""
    if isinstance(value, str):
        return value, {}
    configuration = value.get("configuration", {}) if isinstance(value, dict) else None
    _require(isinstance(configuration, dict), f"{_short(value)}, which has no name and configuration")
    return value.get("name"), configuration


# ---- both ----
def _require(condition: Any, otherwise: str) -> None:
    if not condition:
        raise RefusedMetadata(otherwise)


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1e18 else "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."


def _unknown_codec(name: Any) -> str:
    return (
        f"the codec {_short(name)}, which is not one of those that only unpack numbers "
        f"({', '.join(COMPRESSORS_2)}, delta, shuffle): {CONVERT}"
    )


def _lengths(metadata: Mapping[str, Any], key: str, least: int) -> tuple[int, ...]:
    values = metadata.get(key)
    _require(
        isinstance(values, list)
        and len(values) <= MAX_DIMENSIONS
        and all(type(length) is int and least <= length <= LONGEST_AXIS for length in values),
        f"the {key} {_short(values)}",
    )
    return tuple(values)


def _as_many(chunks: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    _require(len(chunks) == len(shape), f"chunks {list(chunks)} of an array {list(shape)}")
    return chunks


def _separator(value: Any) -> str:
    _require(value in (".", "/"), f"the separator {_short(value)} instead of . or /")
    return value


def _fill_value(value: Any, dtype: np.dtype) -> Any:
    """The number that absent chunks are full of; null means 0."""
    if value is None:
        return dtype.type(0)
    named = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    if dtype.kind == "f" and isinstance(value, str) and value in named:
        return dtype.type(named[value])
    if dtype.kind == "f":
        fits = type(value) is float or (type(value) is int and abs(value) < 2**100)
    elif dtype.kind == "b":
        fits = value in (0, 1)
    else:
        limits = np.iinfo(dtype)
        fits = type(value) in (int, float) and value == value // 1 and limits.min <= value <= limits.max
    _require(fits, f"the fill value {_short(value)} of type {dtype.str}")
    with np.errstate(over="ignore"):
        return dtype.type(value)
