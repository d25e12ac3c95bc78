"""Messages of openpi's clients: msgpack in binary frames, arrays as maps of their bytes, type and shape."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

_NUMBERS = re.compile(r"[<>=|]?[fiu][1248]")  # no objects, no records, no strings
_MOST_AXES, _LONGEST_LIST, _MOST_KEYS, _LONGEST_TEXT = 8, 65_536, 256, 65_536


class BadRequest(Exception):
    """A message that is none, or asks for something that this server does not have."""


def packed(content: Mapping[str, Any]) -> bytes:
    """A message as openpi's clients read it: texts, numbers, lists, maps and numeric arrays."""
    return msgpack.packb(content, default=_as_map)


def unpacked(data: bytes) -> dict[str, Any]:
    """The map of a message; its arrays are copies in the machine's byte order.

    Raises:
        BadRequest: it is no msgpack, no map with texts as keys, or holds what is neither number, text, list nor array.
    """
    try:
        content = msgpack.unpackb(
            data,
            object_hook=_from_map,
            max_array_len=_LONGEST_LIST,
            max_map_len=_MOST_KEYS,
            max_str_len=_LONGEST_TEXT,
            max_ext_len=0,
        )
    except BadRequest:
        raise
    except Exception as error:  # msgpack has no one class for damaged data
        raise BadRequest(f"the message is no msgpack ({type(error).__name__}: {str(error)[:200]})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadRequest("the message has to be a map of observations by their names")
    return content


def as_array(name: str, value: Any) -> np.ndarray:
    """A numeric array, or nested lists of numbers.

    Raises:
        BadRequest: it is neither.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiu":
        raise BadRequest(f"{name} is no array of numbers")
    return array


def _as_map(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": list(value.shape),
        }
    raise TypeError(f"a message cannot hold a {type(value).__name__}")


def _from_map(content: dict) -> Any:
    if b"__ndarray__" in content:
        return _array(content.get(b"data"), content.get(b"dtype"), content.get(b"shape"))
    if b"__npgeneric__" in content:
        kind, number = _dtype(content.get(b"dtype")), content.get(b"data")
        if type(number) not in (int, float):
            raise BadRequest("a scalar is no number")
        return np.asarray(number).astype(kind)[()].item()
    return content


def _dtype(text: Any) -> np.dtype:
    if not isinstance(text, str) or not _NUMBERS.fullmatch(text):
        raise BadRequest(f"an array is of type {str(text)[:40]!r}: send floating-point numbers or integers")
    try:
        return np.dtype(text)
    except TypeError:
        raise BadRequest(f"an array is of type {text!r}, which does not exist") from None


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    kind = _dtype(dtype)
    sizes = isinstance(shape, list) and len(shape) <= _MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(data, bytes) or not sizes:
        raise BadRequest("an array has no bytes or no shape")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise BadRequest(f"an array of shape {shape} and type {dtype} comes with {len(data)} bytes")
    return np.ndarray(shape, kind, data).astype(kind.newbyteorder("="))
