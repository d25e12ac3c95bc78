"""Hand-made inputs: small files that ask for much, or that would run code if anything did."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

from stress.fuzz.containers import members, rezipped
from stress.fuzz.pickles import CALLS, COMMAND

Changed = dict[str, bytes | None]
RUNS = b"\x80\x02cos\nsystem\n" + COMMAND + b"R."


def pickles(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    import hostile

    (name,) = files
    for title, content in hostile.PICKLES.items():
        yield title, {name: content}
    for call in CALLS:
        yield f"calls {call!r}", {name: b"\x80\x02c" + call + b"\n" + COMMAND + b"R."}
        module = call.partition(b"\n")[0]
        yield f"gets at {call!r}", {name: b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93c" + module + b"\n__dict__\n."}
    for depth in (100, 1000, 10_000, 100_000):
        yield f"lists {depth} deep", {name: b"\x80\x02" + b"](" * depth + b"e" * depth + b"."}
        yield f"a key {depth} deep", {name: b"\x80\x02})" + b"\x85" * depth + b"Ns."}
        yield f"marks {depth} deep", {name: b"(" * depth + b"t" * depth + b"."}
    for power in range(20, 33, 2):
        for opcode in (b"r", b"j"):
            yield (
                f"memo at 2^{power}",
                {name: b"\x80\x02N" + opcode + struct.pack("<I", min(2**power, 2**32 - 1)) + b"."},
            )
    yield "pairs that double", {name: b"\x80\x02]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"."}
    yield "a tuple that doubles", {name: b"\x80\x02)" + b"2\x86" * 400 + b"."}
    for text in (b"latin1", b"utf-16", b"idna", b"rot13", b"zlib", b"unicode_escape"):
        word = b"X" + struct.pack("<I", 300_000) + b"a" * 300_000
        yield (
            f"encodes by {text!r}",
            {name: b"\x80\x02c_codecs\nencode\n" + word + b"X" + struct.pack("<I", len(text)) + text + b"\x86R."},
        )


def checkpoints(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    """The hostile pickles inside the archive of a checkpoint, and as one of its inner pickles."""
    import hostile

    ((name, content),) = files.items()
    parts = list(members(content))
    at = next(index for index, part in enumerate(parts) if part[0].endswith("data.pkl"))
    for title, pickled in hostile.PICKLES.items():
        yield title, {name: rezipped([*parts[:at], (parts[at][0], pickled, 0), *parts[at + 1 :]])}
        inner = pickle.dumps({"cfg": {}, "state_dicts": {}, "pickles": {"global_step": pickled[:400_000]}}, 2)
        yield f"inner pickle: {title}", {name: rezipped([*parts[:at], (parts[at][0], inner, 0), *parts[at + 1 :]])}
    for size in (2**28, 2**30):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(zipfile.ZipInfo("archive/data.pkl"), "w", force_zip64=True) as member:
                for _ in range(size >> 20):
                    member.write(b"(" * (1 << 20))
        yield f"a pickle of {size >> 20} MB packed to nothing", {name: packed.getvalue()}
        break  # the second says nothing that the first does not, and takes its time to be packed


def configs(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    import hostile

    name = next(name for name in files if name.endswith("config.yaml"))
    for title, text in hostile.CONFIGS.items():
        yield title, {name: text.encode()}
    own = files[name].decode()
    for setting in (
        "n_layer",
        "n_emb",
        "n_head",
        "horizon",
        "n_obs_steps",
        "n_cond_layers",
        "num_train_timesteps",
        "num_inference_steps",
        "obs_dim",
        "action_dim",
        "cond_dim",
        "input_dim",
        "n_action_steps",
    ):
        for value in (
            "0",
            "-1",
            "1000000",
            "9223372036854775808",
            "1e308",
            ".nan",
            "null",
            "abc",
            "[1]",
            "true",
            "'1'",
            "1.5",
        ):
            lines = [
                f"{line.partition(':')[0]}: {value}" if line.strip().startswith(f"{setting}:") else line
                for line in own.split("\n")
            ]
            yield f"{setting}: {value}", {name: "\n".join(lines).encode()}
    for target in ("os.system", "builtins.eval", "subprocess.Popen", "torch.load", "", "a.b", "torch.nn.Linear", "5"):
        yield (
            f"_target_: {target}",
            {name: own.replace(own.split("_target_:")[1].split("\n")[0], f" {target}", 1).encode()},
        )


def schedules(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    ((name, content),) = files.items()
    yield (
        "a repeated key among many",
        {name: b"{" + b",".join(b'"k%d": [0]' % (index % 99_999) for index in range(100_000)) + b"}"},
    )
    text = content.decode()
    steps_key = next(iter(json.loads(text)))
    many = "".join(f'"decoder.layers.{index}.sa": [0], ' for index in range(20_000))
    yield "many blocks", {name: text.replace("{", "{" + many, 1).encode()}
    for depth in (900, 5_000, 200_000):
        yield f"lists {depth} deep", {name: b"[" * depth}
        yield f"objects {depth} deep", {name: b'{"a":' * depth}
    yield "a number of many digits", {name: text.replace("0", "9" * 100_000, 1).encode()}
    yield "a megabyte of one text", {name: json.dumps({steps_key: "x" * 1_000_000}).encode()}
    yield "spaces", {name: b" " * 5_000_000}
    yield "a long list", {name: json.dumps({steps_key: list(range(400_000))}).encode()}


def profiles(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    info = next(name for name in files if name.endswith(".json"))
    arrays = next(name for name in files if name.endswith(".npz"))
    stored = json.loads(files[info])
    for key in stored:
        for value in (None, 0, -1, 2**63, 1.5, "x", [], {}, [1] * 100_000, 10**400, True, "\u0000"):
            yield f"{key}: {str(value)[:20]}", {info: json.dumps({**stored, key: value}).encode()}
    yield "a list", {info: b"[]"}
    yield "deep", {info: b"[" * 100_000}
    parts = list(members(files[arrays]))
    without = json.dumps({key: value for key, value in stored.items() if "sha256" not in key}).encode()
    huge = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000), }".ljust(117)
        + b"\n"
    )
    objects = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (6, 6), }".ljust(117)
        + b"\n"
        + RUNS
    )
    for title, member in (("a huge shape", huge), ("objects", objects)):
        yield title, {info: without, arrays: rezipped([(parts[0][0], member, 8), *parts[1:]])}
    yield "many arrays", {info: without, arrays: rezipped([(f"a|{index}.npy", b"", 0) for index in range(60_000)])}
    yield "one array of zeros", {info: without, arrays: rezipped([(parts[0][0], huge + bytes(2**26), 8), *parts[1:]])}


def evaluations(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    settings = next(name for name in files if name.endswith("settings.json"))
    rows = next(name for name in files if name.endswith(".jsonl"))
    for title, content in (
        ("a list", b"[]"),
        ("null", b"null"),
        ("a number", b"7"),
        ("empty", b""),
        ("deep", b"[" * 200_000),
        ("NUL", b"\x00" * 100),
        ("latin1", b'{"task": "\xe9"}'),
        ("digits", b"9" * 10_000),
        ("half", files[settings][:40]),
    ):
        yield f"settings: {title}", {settings: content}
        yield f"rows: {title}", {rows: content + b"\n"}
    line = files[rows].split(b"\n")[0]
    row = json.loads(line)
    for key in row:
        for value in (None, "x", [], {}, -1, 2**70, float("nan"), True, 1.5):
            yield f"row {key}: {value}", {rows: json.dumps({**row, key: value}).encode() + b"\n"}
    yield "a row twice", {rows: line + b"\n" + line + b"\n"}
    yield "one index, two results", {rows: line + b"\n" + json.dumps({**row, "score": 0.99}).encode() + b"\n"}
    yield "half a row at the end", {rows: line + b"\n" + line[:30]}
    yield "a directory", {rows: None, f"{rows}/x": b""}


def comparisons(files: dict[str, bytes]) -> Iterator[tuple[str, Changed]]:
    full = next(name for name in files if "/full/" in name)
    stored = json.loads(files[full])
    for key in stored:
        yield (
            f"without {key}",
            {full: json.dumps({name: value for name, value in stored.items() if name != key}).encode()},
        )
        for value in (None, [], {}, "x", float("nan"), -1):
            yield f"{key}: {value}", {full: json.dumps({**stored, key: value}).encode()}
    for title, content in (("a list", b"[]"), ("empty", b""), ("deep", b"[" * 200_000), ("half", files[full][:200])):
        yield title, {full: content}


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


BY_HAND: dict[str, Callable[[dict[str, bytes]], Iterator[tuple[str, Changed]]]] = {
    "pickles": pickles,
    "checkpoints": checkpoints,
    "configs": configs,
    "schedules": schedules,
    "profiles": profiles,
    "evaluations": evaluations,
    "comparisons": comparisons,
    "zarr 2": zarr_2,
    "zarr 3": zarr_3,
    "archives": archives,
    "hdf5": hdf5,
    "npy": npy,
}
_made: dict[tuple[str, ...], list[tuple[str, Changed]]] = {}


def by_hand(names: tuple[str, ...], files: dict[str, bytes]) -> list[tuple[str, Changed]]:
    """(title, changed files) of all hand-made inputs of these groups; made once, before the children are forked."""
    if names not in _made:
        _made[names] = [made for name in names for made in BY_HAND[name](files)]
    return _made[names]
