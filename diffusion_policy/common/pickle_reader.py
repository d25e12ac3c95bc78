"""Reads the values that a pickle's bytes spell out: numbers, texts, lines."""

from __future__ import annotations

import codecs
import struct
from typing import Any

from diffusion_policy.common.config import CheckpointError

MAX_BYTES = 64 * 2**20  # of one pickle; tensors lie beside it
_MAX_INTEGER = 128  # bytes of a whole number


class PickleReader:
    """A pickle's bytes and a position in them. Every method reads at the position and moves it on.

    Raises:
        CheckpointError: the pickle or a number is too large.
        Exception: of any other kind; the bytes are damaged.
    """

    def __init__(self, data: bytes):
        if len(data) > MAX_BYTES:
            raise CheckpointError(
                f"it has {len(data)} bytes beside its tensors; a policy checkpoint has less than {MAX_BYTES}"
            )
        self._data, self._at = data, 0

    def opcode(self) -> int:
        code = self._data[self._at]
        self._at += 1
        return code

    def take(self, size: int) -> bytes:
        start, end = self._at, self._at + size
        if not start <= end <= len(self._data):
            raise ValueError("it ends too early")
        self._at = end
        return self._data[start:end]

    def number(self, form: str) -> Any:
        """A number of a form of `struct`."""
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def line(self) -> bytes:
        end = self._data.index(b"\n", self._at)
        line, self._at = self._data[self._at : end], end + 1
        return line

    def integer(self, text: bytes) -> int:
        """The whole number that a text spells in decimal digits."""
        if len(text) > 3 * _MAX_INTEGER:
            raise CheckpointError("it holds a number of too many digits: it is no policy checkpoint")
        return int(text)

    def long(self, size: int) -> int:
        """A whole number of `size` bytes."""
        if not 0 <= size <= _MAX_INTEGER:
            raise CheckpointError(f"it holds a number of {size} bytes: it is no policy checkpoint")
        return int.from_bytes(self.take(size), "little", signed=True)

    def plain_integer(self) -> int | bool:
        """A line that spells a whole number or, as protocol 1 does, a truth value."""
        line = self.line()
        return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else self.integer(line)

    def long_integer(self) -> int:
        return self.integer(self.line().rstrip(b"L"))

    def text(self, form: str) -> str:
        """UTF-8 after its length, which has a form of `struct`."""
        return str(self.take(self.number(form)), "utf-8", "surrogatepass")

    def quoted(self) -> str:
        """A line with a text of Python 2 in quotes."""
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"\"'":
            raise ValueError("a text without quotes")
        return codecs.escape_decode(line[1:-1])[0].decode("ascii")

    def protocol(self) -> None:
        version = self.number("<B")
        if version > 5:
            raise ValueError(f"pickle protocol {version} is unknown")

    def frame(self) -> None:
        if self.number("<Q") > len(self._data) - self._at:
            raise ValueError("it ends too early")
