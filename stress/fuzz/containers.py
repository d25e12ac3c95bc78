"""Mutations of files with a structure of their own: npy, zip, safetensors, HDF5, zarr chunks."""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
from functools import lru_cache
from random import Random

from stress.fuzz import damage, pickles, texts
from stress.fuzz.damage import NUMBERS, damaged

DATE = (1980, 1, 1, 0, 0, 0)  # of zip members, so that a seed gives the same bytes every day
DTYPES = (
    "'<f8'",
    "'|O'",
    "'<U9'",
    "'|V8'",
    "'<M8[ns]'",
    "[('a', '<f4')]",
    "'>f4'",
    "'|b1'",
    "'<c16'",
    "'<f2'",
    "'<i8'",
    "'|S2000000000'",
    "5",
    "'x'",
    "'<f8', 'x': 1",
    "__import__('os')",
    "('<f8', (1000000000,))",
    "'" + "x" * 70_000 + "'",
    "(" * 500 + ")" * 500,
)
SHAPES = (
    "(1000000000,)",
    "(-1,)",
    "()",
    "(4294967296, 4294967296)",
    "(2**70,)",
    "(3, 2, " + "1, " * 40 + ")",
    "(True,)",
    "3",
    "(0,)",
    "('a',)",
    "[3]",
    "(1.5,)",
    "(9" + "9" * 4400 + ",)",
)


def npy(rng: Random, content: bytes) -> bytes:
    """Another header, with its length put right in most cases."""
    if rng.random() < 0.35 or not content.startswith(b"\x93NUMPY\x01"):
        return damaged(rng, content)
    (length,) = struct.unpack_from("<H", content, 8)
    header, body = content[10 : 10 + length].decode("latin1"), content[10 + length :]
    change = rng.randrange(5)
    if change == 0:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': {rng.choice(SHAPES)}", header)
    elif change == 1:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {rng.choice(DTYPES)}", header)
    elif change == 2:
        header = header.replace("False", rng.choice(("True", "None", "3", "'x'")))
    elif change == 3:
        header = damaged(rng, header.encode("latin1")).decode("latin1")
    else:
        pickled = b"\x80\x02cos\nsystem\n" + pickles.COMMAND + b"R."
        body = damaged(rng, body) if rng.random() < 0.5 else rng.choice((b"", body * 2, b"\xff" * len(body), pickled))
    packed = header.encode("latin1")
    length = len(packed) if rng.random() < 0.9 else rng.choice(NUMBERS)
    version, form = (b"\x01\x00", "<H") if len(packed) < 65536 else (b"\x02\x00", "<I")
    version = version if rng.random() < 0.9 else rng.choice((b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\x01\x09"))
    return b"\x93NUMPY" + version + struct.pack(form, length % (1 << 8 * struct.calcsize(form))) + packed + body


@lru_cache(maxsize=64)
def members(content: bytes) -> tuple[tuple[str, bytes, int], ...]:
    """(name, content, method) of a sound zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return tuple((info.filename, archive.read(info), info.compress_type) for info in archive.infolist())


def rezipped(parts: list[tuple[str, bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data, method in parts:
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = method
            archive.writestr(info, data)
    return buffer.getvalue()


def zipped(rng: Random, content: bytes) -> bytes:
    """A damaged archive; or a sound one whose members are damaged, missing, doubled, renamed or packed otherwise."""
    if rng.random() < 0.3:
        return damaged(rng, content)
    parts = list(members(content))
    at, change = rng.randrange(len(parts)), rng.randrange(10)
    name, data, method = parts[at]
    if change <= 4:
        # The pickle of a checkpoint is one of many members, and the one that matters.
        pickled = [index for index, part in enumerate(parts) if part[0].endswith(".pkl")]
        if pickled and rng.random() < 0.7:
            at = pickled[0]
            name, data, method = parts[at]
        parts[at] = name, of_file(name)(rng, data), method
    elif change == 5:
        del parts[at]
    elif change == 6:
        parts.insert(at, parts[rng.randrange(len(parts))])
    elif change == 7:
        names = (
            f"../{name}",
            f"/{name}",
            name.upper(),
            f"{name}/",
            "a/" * 300 + name,
            "\u00e9",
            name.replace("/", "\\"),
        )
        parts[at] = rng.choice(names), data, method
    elif change == 8:
        parts[at] = name, rng.choice((data * 50, bytes(2**24), b"")), zipfile.ZIP_DEFLATED
    else:
        parts[at] = (
            name,
            data,
            rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED)),
        )
    packed = rezipped(parts)
    return _directory(rng, packed) if rng.random() < 0.25 else packed


def _directory(rng: Random, content: bytes) -> bytes:
    """Another number in one record of the directory."""
    at = [found.start() for found in re.finditer(rb"PK\x01\x02|PK\x05\x06|PK\x03\x04", content)]
    data, start = bytearray(content), rng.choice(at)
    field, size = rng.choice(
        ((6, 2), (8, 2), (10, 2), (12, 4), (14, 4), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4))
    )
    packed = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    data[start + field : start + field + size] = packed
    return bytes(data)


def safetensors(rng: Random, content: bytes) -> bytes:
    """Another header, with its length put right in most cases."""
    if rng.random() < 0.3:
        return damaged(rng, content)
    (length,) = struct.unpack_from("<Q", content)
    header, body = content[8 : 8 + length], content[8 + length :]
    try:
        packed = (
            json.dumps(texts.altered(rng, json.loads(header))).encode()
            if rng.random() < 0.8
            else texts.of_json(rng, header)
        )
    except (RecursionError, ValueError):  # too deep, or a number of too many digits, to be written
        packed = damaged(rng, header)
    length = len(packed) if rng.random() < 0.93 else rng.choice(NUMBERS) % 2**64
    return struct.pack("<Q", length) + packed + (body if rng.random() < 0.9 else damaged(rng, body))


def hdf5(rng: Random, content: bytes) -> bytes:
    """Headers come more often than numbers: the superblock, what follows the signatures of nodes, heaps and objects."""
    if rng.random() < 0.3:
        return damaged(rng, content)
    data = bytearray(content)
    signatures = [0, *(found.start() for found in re.finditer(rb"TREE|SNOD|HEAP|OHDR|GCOL|FRHP|BTHD", content))]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice(signatures) + rng.randrange(96) if rng.random() < 0.8 else rng.randrange(len(data))
        if at < len(data):
            size = rng.choice((1, 2, 4, 8))
            packed = (
                (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
                if rng.random() < 0.6
                else rng.randbytes(size)
            )
            data[at : at + size] = packed[: len(data) - at]
    return bytes(data)


def log(rng: Random, content: bytes) -> bytes:
    """An .mjl file: seven sizes, and rows."""
    return damage.integers(rng, content, 7) if rng.random() < 0.4 else damaged(rng, content)


def packed_chunk(rng: Random, content: bytes) -> bytes:
    """A zarr chunk: the 16 bytes of its packer's header, or anywhere."""
    return (
        damage.integers(rng, content, 4, "<I") if len(content) >= 16 and rng.random() < 0.3 else damaged(rng, content)
    )


FORMATS = (
    (re.compile(r"\.(json|jsonl|zarray|zgroup|zattrs|zmetadata)$"), texts.of_json),
    (re.compile(r"\.ya?ml$"), texts.of_yaml),
    (re.compile(r"\.(ckpt|zip|npz)$"), zipped),
    (re.compile(r"\.npy$"), npy),
    (re.compile(r"\.pkl$"), pickles.altered),
    (re.compile(r"\.safetensors$"), safetensors),
    (re.compile(r"\.hdf5$"), hdf5),
    (re.compile(r"\.mjl$"), log),
    (re.compile(r"(^|/)(c/)?[\d./]+$"), packed_chunk),
)


def of_file(name: str):
    """What mutates a file of this name."""
    return next((mutate for pattern, mutate in FORMATS if pattern.search(name)), damaged)
