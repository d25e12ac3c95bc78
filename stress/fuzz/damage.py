"""Mutations of bytes that know nothing of their format, and numbers that programs stumble over."""

from __future__ import annotations

import struct
from random import Random

#: sizes, counts and offsets at the edges of their types
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    1023,
    32767,
    32768,
    65535,
    65536,
    10**6,
    2**24,
    2**28,
    2**30,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -1,
    -2,
    -128,
    -32768,
    -(2**31),
    -(2**63),
)
PLACES = ("anywhere", "start", "end")


def place(rng: Random, size: int) -> int:
    """An offset; headers and directories, which lie at the ends, come more often than their size would have it."""
    where = rng.choice(PLACES)
    near = min(size, 64)
    if where == "start":
        return rng.randrange(near)
    if where == "end":
        return size - 1 - rng.randrange(near)
    return rng.randrange(size)


def flip(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        data[place(rng, len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: Random, data: bytearray) -> None:
    start = place(rng, len(data))
    one = bytes([rng.choice((0, 255, 127, 128))])
    values = rng.choice((one * rng.choice((1, 4, 8, 64)), rng.randbytes(rng.choice((1, 2, 4, 16)))))
    data[start : start + len(values)] = values[: len(data) - start]


def number(rng: Random, data: bytearray) -> None:
    size = rng.choice((1, 2, 4, 8))
    packed = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "little", "big")))
    start = place(rng, len(data))
    data[start : start + size] = packed[: len(data) - start]


def add(rng: Random, data: bytearray) -> None:
    """A little-endian number a little larger or smaller."""
    size = rng.choice((1, 2, 4, 8))
    start = max(0, min(place(rng, len(data)), len(data) - size))
    here = data[start : start + size]
    changed = int.from_bytes(here, "little") + rng.choice((-16, -4, -1, 1, 4, 16))
    data[start : start + len(here)] = (changed % (1 << 8 * len(here))).to_bytes(len(here), "little")


def truncate(rng: Random, data: bytearray) -> None:
    del data[place(rng, len(data)) :]


def extend(rng: Random, data: bytearray) -> None:
    data += rng.choice((bytes(rng.choice((1, 8, 512))), rng.randbytes(16), bytes(data[: rng.choice((16, 4096))])))


def remove(rng: Random, data: bytearray) -> None:
    start = place(rng, len(data))
    del data[start : start + rng.choice((1, 2, 4, 8, 32, 512))]


def repeat(rng: Random, data: bytearray) -> None:
    start = place(rng, len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 128))]
    data[start:start] = piece * rng.choice((1, 1, 3, 200))


def swap(rng: Random, data: bytearray) -> None:
    """Two pieces of one size change places."""
    size = min(rng.choice((1, 4, 16, 256)), len(data) // 2)
    if size:
        a, b = sorted(rng.randrange(len(data) - size + 1) for _ in range(2))
        if b - a >= size:
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def splice(rng: Random, data: bytearray) -> None:
    """The beginning, and then the end from another place."""
    data[place(rng, len(data)) :] = data[place(rng, len(data)) :]


MUTATIONS = (flip, flip, flip, overwrite, number, number, add, truncate, extend, remove, repeat, swap, splice)


def damaged(rng: Random, content: bytes) -> bytes:
    """One to three mutations."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            return rng.randbytes(rng.randrange(64))
        rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def integers(rng: Random, content: bytes, count: int, form: str = "<i") -> bytes:
    """Another value for one of the `count` integers at the start."""
    size = struct.calcsize(form)
    at = size * rng.randrange(count)
    value = rng.choice(NUMBERS) % (1 << 8 * size)
    return content[:at] + value.to_bytes(size, "little") + content[at + size :]
