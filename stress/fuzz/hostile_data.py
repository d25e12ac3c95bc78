"""Hand-made data sets and archives that ask for much or would run code."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator

from stress.fuzz.containers import members, rezipped
from stress.fuzz.loaders import Changed
from stress.fuzz.pickles import RUNS


def zarr_2(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    name = next(name for name in files if name.endswith("data/action/.zarray"))
    chunk = next(key for key in files if key.startswith(name.removesuffix(".zarray")) and key.endswith(("/0", "/0.0")))
    stored = json.loads(files[name])
    codecs = (
        "pickle",
        "json2",
        "msgpack2",
        "vlen-utf8",
        "vlen-array",
        "categorize",
        "fixedscaleoffset",
        "quantize",
        "delta",
        "astype",
        "blosc",
        "lz4",
        "zstd",
        "lzma",
        "bz2",
        "gzip",
        "zfpy",
        "",
        5,
        "../x",
    )
    for codec in codecs:
        yield f"filter {codec}", {name: json.dumps({**stored, "filters": [{"id": codec}]}).encode(), chunk: RUNS}
        yield f"compressor {codec}", {name: json.dumps({**stored, "compressor": {"id": codec}}).encode(), chunk: RUNS}
        yield (
            f"objects, filter {codec}",
            {
                name: json.dumps(
                    {**stored, "dtype": "|O", "fill_value": None, "compressor": None, "filters": [{"id": codec}]}
                ).encode(),
                chunk: RUNS,
            },
        )
    yield from _zarr_claims(name, stored, "chunks", chunk)
    for dtype in (
        "|O",
        "<U1000000000",
        "|V8",
        "<M8[ns]",
        "[['a', '<f4']]",
        "<c16",
        ">f4",
        "|b1",
        "<f16",
        "|S2147483647",
        "",
        5,
        None,
        "f" * 100_000,
    ):
        yield f"dtype {str(dtype)[:20]}", {name: json.dumps({**stored, "dtype": dtype}).encode(), chunk: RUNS}


def zarr_3(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    name = next(name for name in files if name.endswith("data/action/zarr.json"))
    chunk = next(key for key in files if key.startswith(name.removesuffix("zarr.json")) and "/c/0" in key)
    stored = json.loads(files[name])
    byte_codec = {"name": "bytes", "configuration": {"endian": "little"}}
    for codec in (
        "numcodecs.pickle",
        "pickle",
        "numcodecs.json2",
        "vlen-utf8",
        "vlen-bytes",
        "sharding_indexed",
        "transpose",
        "crc32c",
        "gzip",
        "zstd",
        "blosc",
        "numcodecs.lzma",
        "",
        5,
    ):
        for configuration in ({}, {"level": 99}, {"chunk_shape": [1]}, {"order": [9]}, None):
            other = {"name": codec, "configuration": configuration}
            yield f"codec {codec}", {name: json.dumps({**stored, "codecs": [other, byte_codec]}).encode(), chunk: RUNS}
            yield (
                f"codec {codec} after",
                {name: json.dumps({**stored, "codecs": [byte_codec, other]}).encode(), chunk: RUNS},
            )
    for dtype in (
        "object",
        "string",
        "variable_length_utf8",
        "numpy.datetime64",
        "r9999999999",
        "fixed_length_utf32",
        "",
        5,
        {"name": "x"},
    ):
        yield f"type {dtype}", {name: json.dumps({**stored, "data_type": dtype}).encode(), chunk: RUNS}
    yield from _zarr_claims(name, stored, "", chunk)


def _zarr_claims(name: str, stored: dict, chunks: str, chunk: str) -> Iterator[tuple[str, Changed]]:
    rank = len(stored["shape"])
    for size in (0, -1, 2**31, 2**40, 2**63, 10**30, 1.5, "9", None, True):
        shape = [size, *stored["shape"][1:]]
        yield f"shape {size}", {name: json.dumps({**stored, "shape": shape}).encode()}
        yield f"shape {size} without chunks", {name: json.dumps({**stored, "shape": shape}).encode(), chunk: None}
        if chunks:
            yield f"chunks {size}", {name: json.dumps({**stored, "shape": shape, chunks: shape}).encode()}
        else:
            yield (
                f"chunks {size}",
                {
                    name: json.dumps(
                        {
                            **stored,
                            "shape": shape,
                            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
                        }
                    ).encode()
                },
            )
    yield (
        "many axes",
        {name: json.dumps({**stored, "shape": [1] * 2000, **({chunks: [1] * 2000} if chunks else {})}).encode()},
    )
    yield "no axes", {name: json.dumps({**stored, "shape": [], **({chunks: []} if chunks else {})}).encode()}
    yield (
        "tiny chunks",
        {name: json.dumps({**stored, "shape": [10**7] * rank, **({chunks: [1] * rank} if chunks else {})}).encode()},
    )
    yield "deep", {name: b"[" * 100_000}
    yield "a list", {name: b"[]"}


def archives(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    ((name, content),) = files.items()
    parts = list(members(content))
    for evil in (
        "pusht/../../../stress-outside",
        "/tmp/stress-outside",
        "pusht/demos.zarr/../../../../stress-outside",
        "..\\stress-outside",
        "pusht/\x01",
        "pusht/" + "a/" * 2000 + "b",
        "pusht/" + "n" * 300,
    ):
        yield f"member {evil[:30]!r}", {name: rezipped([*parts, (evil, b"x", 0)])}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("pusht/demos.zarr", (1980, 1, 1, 0, 0, 0))
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
        archive.writestr("pusht/demos.zarr/passwd", "x")
    yield "a link", {name: buffer.getvalue()}
    yield "a bomb", {name: rezipped([*parts, ("pusht/demos.zarr/data/x", bytes(2**27), 8)])}
    yield "many members", {name: rezipped([(f"pusht/demos.zarr/{index}", b"", 0) for index in range(30_000)])}


def hdf5(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    import h5py
    import numpy as np

    ((name, content),) = files.items()

    def changed(change: Callable[[h5py.File], None]) -> Changed:
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            change(file)
        return {name: buffer.getvalue()}

    def replaced(path: str, **options):
        def change(file: h5py.File) -> None:
            del file[path]
            file.create_dataset(path, **options)

        return change

    for path in ("data/demo_0/actions", "data/demo_0/states", "data/demo_0/obs/object"):
        shape = (2**33, 7)
        yield (
            f"{path}: a huge shape",
            changed(replaced(path, shape=shape, chunks=(1024, 7), maxshape=(None, 7), dtype="f8")),
        )
        packed = replaced(path, shape=(2**27, 7), chunks=(2**20, 7), dtype="f8", compression="gzip")
        yield f"{path}: a huge packed chunk", changed(packed)
        yield f"{path}: texts", changed(replaced(path, data=["a", "b"]))
        yield f"{path}: a number", changed(replaced(path, data=5.0))
        yield f"{path}: empty", changed(replaced(path, data=h5py.Empty("f8")))
        yield f"{path}: a record", changed(replaced(path, data=np.zeros(8, [("a", "f8"), ("b", "i4")])))
        yield f"{path}: references", changed(replaced(path, shape=(8,), dtype=h5py.ref_dtype))

        def as_group(file: h5py.File, path: str = path) -> None:
            del file[path]
            file.create_group(path)

        def as_link(file: h5py.File, path: str = path) -> None:
            del file[path]
            file[path] = h5py.ExternalLink("/etc/passwd", "/x")

        def as_loop(file: h5py.File, path: str = path) -> None:
            del file[path]
            file[path] = h5py.SoftLink(f"/{path}")

        def outside(file: h5py.File, path: str = path) -> None:
            del file[path]
            file.create_dataset(path, (8, 7), "f8", external=[("/etc/passwd", 0, 448)])

        for title, change in (
            ("a group", as_group),
            ("another file", as_link),
            ("a loop", as_loop),
            ("numbers of another file", outside),
        ):
            yield f"{path}: {title}", changed(change)

    def attribute(value):
        def change(file: h5py.File) -> None:
            file["data"].attrs["env_args"] = value

        return change

    for title, value in (
        ("a number", 5),
        ("no JSON", "{"),
        ("deep", "[" * 30_000),
        ("a list", "[]"),
        ("bytes", b"\xff\xfe"),
        ("empty", "{}"),
        ("digits", "9" * 5000),
    ):
        yield f"env_args: {title}", changed(attribute(value))


def npy(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    from stress.fuzz.containers import DTYPES, SHAPES

    ((name, content),) = files.items()
    (length,) = struct.unpack_from("<H", content, 8)
    body = content[10 + length :]
    for dtype in DTYPES:
        for shape in SHAPES[:6]:
            header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
            content = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + (RUNS if "O" in dtype else body)
            yield f"{dtype[:20]} {shape[:20]}", {name: content}
