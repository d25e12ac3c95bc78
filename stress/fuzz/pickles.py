"""Mutations of pickles by instruction: the stream stays decodable while what it says does not stay sound."""

from __future__ import annotations

import pickle
import pickletools
import struct
from functools import lru_cache
from random import Random

from stress.fuzz.damage import NUMBERS, damaged

#: what a hostile pickle would call; none of it may ever run, and the child process watches for it
CALLS = tuple(
    name.replace(" ", "\n").encode()
    for name in (
        "os system",
        "posix system",
        "subprocess check_output",
        "builtins exec",
        "builtins eval",
        "builtins getattr",
        "builtins __import__",
        "importlib import_module",
        "pickle loads",
        "dill._dill _load_type",
        "dill._dill _create_code",
        "torch load",
        "torch.hub load",
        "numpy load",
        "shutil rmtree",
        "_codecs encode",
        "builtins bytearray",
        "builtins list",
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "omegaconf.dictconfig DictConfig",
        "codecs decode",
        "operator attrgetter",
        "functools partial",
        "types CodeType",
        "builtins range",
        "numpy._core.multiarray scalar",
        "numpy.core.multiarray _reconstruct",
    )
)
COMMAND = b"(X\x15\x00\x00\x00touch stress-ran-codet"  # a tuple of one text
RUNS = b"\x80\x02cos\nsystem\n" + COMMAND + b"R."  # runs the command if anything unpickles it


@lru_cache(maxsize=64)
def instructions(content: bytes) -> tuple[bytes, ...]:
    """The pickle cut at its instructions."""
    starts = [position for _, _, position in pickletools.genops(content)]
    return tuple(content[a:b] for a, b in zip(starts, [*starts[1:], len(content)]))


def altered(rng: Random, content: bytes) -> bytes:
    """A quarter with damaged bytes, the others with instructions replaced, moved, repeated, removed or added."""
    if rng.random() < 0.25:
        return damaged(rng, content)
    try:
        code = list(instructions(content))
    except Exception:  # pickletools raises many kinds for what is no pickle
        return damaged(rng, content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, change = rng.randrange(len(code)), rng.randrange(8)
        if change == 0 and len(code) > 1:
            del code[at]
        elif change == 1:
            code[at:at] = [code[at]] * rng.choice((1, 2, 1000))
        elif change == 2:
            code[at] = rng.choice(code)
        elif change == 3:
            other = rng.randrange(len(code))
            code[at], code[other] = code[other], code[at]
        elif change == 4:
            code.insert(at, call(rng))
        elif change == 5:
            code.insert(at, rng.choice(SNIPPETS))
        elif change == 6:
            code[at] = _argument(rng, code[at])
        else:
            code.insert(at, rng.choice(OPCODES))
    return b"".join(code)


def call(rng: Random) -> bytes:
    """A global, called in one of the ways there are; its result dropped or kept."""
    name = rng.choice(CALLS)
    module, _, attribute = name.partition(b"\n")
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text for text in (module, attribute))
    return rng.choice(
        (
            b"c" + name + b"\n" + COMMAND + b"R",
            texts + b"\x93" + COMMAND + b"R0",
            b"(i" + name + b"\n" if rng.random() < 0.5 else b"(X\x04\x00\x00\x00truei" + name + b"\n",
            b"(c" + name + b"\nX\x04\x00\x00\x00trueo",
            b"c" + name + b"\n)\x81",
            b"c" + name + b"\n)}\x92",
            b"c" + name + b"\n" + COMMAND + b"\x81}b",
        )
    )


def _argument(rng: Random, instruction: bytes) -> bytes:
    """The same instruction with another argument."""
    if len(instruction) in (2, 3, 5, 9):
        size = len(instruction) - 1
        return instruction[:1] + (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return instruction[:1] + damaged(rng, instruction[1:]) if len(instruction) > 1 else rng.choice(OPCODES)


OPCODES = tuple(op.code.encode("latin1") for op in pickletools.opcodes if op.arg is None)
SNIPPETS = (
    b"r" + struct.pack("<I", 2**28),
    b"p268435456\n",
    b"j" + struct.pack("<I", 2**31),
    b"h\xff",
    b"2" * 50,
    b"\x85" * 3000,
    b"](" * 500,
    b")" + b"\x86" * 20,
    b"\x8b" + struct.pack("<i", 20000) + b"\xff" * 20000,
    b"\x8a\x10" + b"\xff" * 16,
    b"L" + b"9" * 5000 + b"L\n",
    b"F1e999\n",
    b"Fnan\n",
    b"I01\n",
    b"\x8e" + struct.pack("<Q", 2**40),
    b"\x8d" + struct.pack("<Q", 2**63),
    b"X" + struct.pack("<I", 2**31),
    b"\x95" + struct.pack("<Q", 9),
    b"}q\x05h\x05h\x05s",
    b"]q\x06h\x06a",
    b"\x8f(K\x01K\x02\x90",
    b"Pabc\n",
    b"Q",
    b"\x82\x01",
    b"\x97",
    b"\x98",
    b"\x80\x05",
    b"\x80\xff",
    b"V\\ud800\n",
)


def sample() -> bytes:
    """A pickle with every container, memo and call that checkpoints have."""
    from collections import OrderedDict

    shared = ["a", 1.5, None]
    return pickle.dumps(
        {"a": shared, "b": (shared, True, -7, 2**70), "c": OrderedDict(x=b"bytes"), "d": {1, 2}, "e": "text" * 20}, 2
    )
