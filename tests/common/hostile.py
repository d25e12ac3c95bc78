"""Small files that ask for much: pickles, zip records and configs that no sound checkpoint holds."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path


def _text(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


def _repeated_call(name: bytes, item: bytes, count: int = 20_000) -> bytes:
    """`name(list)` again and again, on one list of 50,000 items."""
    return b"\x80\x02c" + name + b"q\x00]q\x01(" + item * 50_000 + b"e](" + b"h\x00h\x01\x85R" * count + b"e."


_MODULUS = 2**61 - 1  # whole numbers that differ by multiples of it have the same hash

PICKLES: dict[str, bytes] = {
    "a key nested deeply": b"\x80\x02})" + b"\x85" * 150_000 + b"J\1\0\0\0s.",
    "a key nested 3,000 deep": b"\x80\x02})" + b"\x85" * 3_000 + b"J\1\0\0\0s.",
    "a key that doubles": b"\x80\x02})" + b"q\x00h\x00\x86" * 100_000 + b"J\1\0\0\0s.",
    "a set member nested deeply": b"\x80\x04\x8f()" + b"\x85" * 150_000 + b"\x90.",
    "frozen sets nested deeply": b"\x80\x04" + b"(" * 150_000 + b")" + b"\x91" * 150_000 + b".",
    "pairs of deep keys": b"\x80\x02ccollections\nOrderedDict\n])" + b"\x85" * 150_000 + b"N\x86a\x85R.",
    "lists nested deeply": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "tuples nested deeply": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "config nodes nested deeply": b"\x80\x02comegaconf.nodes\nAnyNode\nq\x00"
    + b"h\x00)\x81" * 100_000
    + b"b" * 99_999
    + b".",
    "a deep outside object": b"\x80\x02()" + b"\x85" * 100_000 + b"NNNNtQ.",
    "a large memo index": b"\x80\x02Nr" + struct.pack("<I", 2**28) + b".",
    "one text encoded often": b"\x80\x02c_codecs\nencode\nq\x00"
    + _text(b"a" * 300_000)
    + b"q\x01"
    + _text(b"latin1")
    + b"q\x02]("
    + b"h\x00h\x01h\x02\x86R" * 20_000
    + b"e.",
    "one list copied often": _repeated_call(b"builtins\nlist\n", b"N"),
    "one set made often": _repeated_call(b"builtins\nset\n", b"N"),
    "one dict made often": _repeated_call(b"collections\nOrderedDict\n", b"K\x01N\x86"),
    "one size made often": _repeated_call(b"torch\nSize\n", b"K\x01"),
    "many empty sets": b"\x80\x04" + b"\x8f" * 1_500_000 + b".",
    "keys of one hash": b"\x80\x02}("
    + b"".join(b"\x8a\x10" + (_MODULUS * (k + 1)).to_bytes(16, "little") + b"N" for k in range(50_000))
    + b"u.",
    "many keys that are tuples": b"\x80\x02}("
    + b"".join(b"J" + struct.pack("<i", k) + b"K\x01\x86N" for k in range(50_000))
    + b"u.",
    "a number of many bytes": b"\x80\x02\x8b" + struct.pack("<i", 5_000_000) + b"\xff" * 5_000_000 + b".",
    "a key of many digits": b"\x80\x02}\x8b" + struct.pack("<i", 5_000) + b"\x01" * 5_000 + b"Ns.",
    "a text of many digits": b"L" + b"9" * 3_000_000 + b"L\n.",
    "sizes beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "a negative size": b"\x80\x02T" + struct.pack("<i", -7) + b".",
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
    "an array beyond the end": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
    "a long name": b"c" + b"a" * 1_000_000 + b"\nb\n.",
    "many classes": b"\x80\x02" + b"".join(b"cmine\nC%d\n" % k for k in range(50_000)) + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "pickles that are a number": pickle.dumps({"cfg": {}, "state_dicts": {}, "pickles": 5}, 2),
    "pickles that are numbers": pickle.dumps({"cfg": {}, "state_dicts": {}, "pickles": {"step": 5}}, 2),
    "one pickle under many keys": b"\x80\x02}("
    + _text(b"pickles")
    + b"}("
    + b"".join(
        b"J"
        + struct.pack("<i", k)
        + (b"B" + struct.pack("<I", 200_002) + b"]" * 200_001 + b".q\x01" if k == 0 else b"h\x01")
        for k in range(1_000)
    )
    + b"u"
    + _text(b"cfg")
    + b"}"
    + _text(b"state_dicts")
    + b"}u.",
}

CONFIGS: dict[str, str] = {
    "aliases that double": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
    "an alias in itself": "policy: &a [*a]\n",
    "merges that double": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i}\n  p{i}: *a{i - 1}\n  q{i}: *a{i - 1}\n" for i in range(1, 60)),
    "texts that double": "x0: aa\n"
    + "".join(f"x{i}: ${{x{i - 1}}}${{x{i - 1}}}\n" for i in range(1, 60))
    + "policy: ${x59}\n",
    "lists that double": "x0: aa\n"
    + "".join(f"x{i}: ['${{x{i - 1}}}', '${{x{i - 1}}}']\n" for i in range(1, 60))
    + "policy: ${x59}\n",
    "a circle": "policy: {a: '${policy.b}', b: '${policy.a}'}\n",
    "a section in itself": "policy: {a: '${policy}'}\n",
    "deep lists": "[" * 100_000,
    "deep entries": "- " * 60_000,
    "open interpolations": 'policy: "' + "${" * 50_000 + '"\n',
    "nested interpolations": "policy: '" + "${a." * 10_000 + "}" * 10_000 + "'\n",
    "a number of many digits": "policy: {x: " + "9" * 5_000 + "}\n",
    "a number of many sixties": "policy: {x: 1" + ":59" * 30_000 + "}\n",
    "a million bytes": "policy: {x: " + "y" * 1_000_000 + "}\n",
    "an object": "policy: !!python/object/apply:os.system ['true']\n",
    "bytes": "policy: {x: !!binary aGk=}\n",
    "NUL": "policy: \0\n",
}


def archive(
    path: Path, pickled: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> Path:
    """A zip file as `torch.save` writes it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for name, data in (records or {}).items():
            file.writestr(f"archive/{name}", data)
    return path
