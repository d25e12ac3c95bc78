"""Hand-made checkpoints, configs, schedules, profiles and results that ask for much or would run code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator

from stress.fuzz.containers import members, rezipped
from stress.fuzz.loaders import Changed
from stress.fuzz.pickles import CALLS, COMMAND, RUNS


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
