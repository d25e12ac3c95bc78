"""What stands in for the functions and classes that a foreign pickle names: functions of our own, and inert objects.

Nothing here looks up a class or function by the name in the file. A stand-in keeps plain data at most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch

from diffusion_policy.common.config import CheckpointError

MAX_AXES = 64  # of a tensor; PyTorch's own limit
_MAX_PATH = 4096  # characters


class Meter(Protocol):
    """What a stand-in may ask of the machine that calls it."""

    def spend(self, copies: int) -> None:
        """Counts elements or bytes that a call makes; too many end the reading."""

    def check_key(self, key: Any) -> None:
        """Refuses what cannot be hashed safely."""


# ---- functions and types ----
class Function:
    """One of our own functions (meter, *arguments), standing in for a named one."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def call(self, meter: Meter, arguments: tuple) -> Any:
        return self._function(meter, *arguments)


class TypeName:
    """A built-in type mentioned by name; calling it makes a container, or fails."""

    containers = {"set": set, "frozenset": frozenset, "list": list, "tuple": tuple}

    def __init__(self, name: str):
        self.name = name

    def call(self, meter: Meter, arguments: tuple) -> Any:
        if self.name == "bytes" and not arguments:
            return b""  # how protocol 2 writes it
        if self.name == "dict":
            return _filled({}, meter, arguments)
        if self.name not in self.containers:
            raise CheckpointError(
                f"refused: the file calls {self.name}(...), which no policy checkpoint needs; do not use it"
            )
        items = arguments[0] if arguments else ()
        if len(arguments) > 1 or not isinstance(items, (list, tuple, set, frozenset)):
            raise ValueError(f"{self.name} of unusual arguments")
        meter.spend(len(items))
        if self.name in ("set", "frozenset"):
            for item in items:
                meter.check_key(item)
        return self.containers[self.name](items)


def _filled(result: dict, meter: Meter, arguments: tuple) -> dict:
    """Puts the items of a dict, or the pairs of a list, into `result`."""
    if len(arguments) > 1 or (arguments and not isinstance(arguments[0], (dict, list, tuple))):
        raise ValueError("a dict of unusual arguments")
    items = arguments[0] if arguments else ()
    meter.spend(len(items))
    for key, value in items.items() if isinstance(items, dict) else items:
        meter.check_key(key)
        result[key] = value
    return result


# ---- objects ----
class Inert:
    """An object of a foreign class: keeps the state it was given and does nothing with it."""

    state: Any = None

    @classmethod
    def make(cls, meter: Meter, arguments: tuple) -> Any:
        return cls()


class ConfigDict(Inert):
    """omegaconf.DictConfig"""


class ConfigList(Inert):
    """omegaconf.ListConfig"""


class ConfigValue(Inert):
    """A leaf of an OmegaConf tree."""


class Placeholder(Inert):
    """An object of a class that no policy needs; only the name of the class is kept."""

    foreign = "?"

    @property
    def state(self) -> None:
        return None

    @state.setter
    def state(self, state: Any) -> None:
        pass


class StoredPath(Inert):
    """pathlib's paths: the parts, as text."""

    def __init__(self, parts: tuple = ()):
        self.parts = parts

    @classmethod
    def make(cls, meter: Meter, arguments: tuple) -> StoredPath:
        return cls(arguments)

    def __str__(self) -> str:
        if not all(isinstance(part, str) for part in self.parts) or sum(map(len, self.parts)) > _MAX_PATH:
            raise CheckpointError("the file holds a path that is not made of text, or too long: it is damaged")
        return str(PurePosixPath(*self.parts))


class PlainDict(dict):
    """OrderedDict; its attributes (a state dict's `_metadata`) are dropped."""

    @classmethod
    def make(cls, meter: Meter, arguments: tuple) -> dict:
        return _filled(cls(), meter, arguments)


class PlainDefaultDict(PlainDict):
    """defaultdict without its factory."""

    @classmethod
    def make(cls, meter: Meter, arguments: tuple) -> dict:
        return _filled(cls(), meter, arguments[1:])


# ---- tensors ----
@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the archive; `TorchArchive.tensor` reads it. Its elements are inside its storage."""

    key: str
    dtype: torch.dtype
    storage_size: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def rebuild_tensor(meter: Meter, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if isinstance(storage, Placeholder):
        return storage  # of a tensor in a pickle of its own, whose bytes are not opened
    wrong = CheckpointError("the file describes a tensor that cannot exist: it is damaged")
    if type(storage) is not tuple or type(size) is not tuple or type(stride) is not tuple or len(size) > MAX_AXES:
        raise wrong
    key, dtype, storage_size = storage
    integers = (storage_size, offset, *size, *stride)
    whole = all(type(i) is int and 0 <= i < 2**62 for i in integers)
    if not isinstance(key, str) or not isinstance(dtype, torch.dtype) or not whole or len(size) != len(stride):
        raise wrong
    return StoredTensor(key, dtype, storage_size, offset, size, stride)


def tensor_size(meter: Meter, sizes: Any = ()) -> tuple:
    if not isinstance(sizes, (list, tuple)) or len(sizes) > MAX_AXES:
        raise ValueError("a tensor's size of an unusual kind")
    return tuple(sizes)


# ---- numbers ----
class NumpyType(Inert):
    """numpy.dtype"""

    def __init__(self, code: Any = None):
        self.code = code

    @classmethod
    def make(cls, meter: Meter, arguments: tuple) -> NumpyType:
        return cls(*arguments[:1])

    def layout(self) -> np.dtype | None:
        """The type, if it is one of plain numbers."""
        if not isinstance(self.code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16", self.code):
            return None
        order: Any = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(self.code).newbyteorder(order) if order in ("<", ">", "|", "=") else None


class NumpyArray(Inert):
    """numpy.ndarray; its state is (version, shape, type, Fortran order, bytes)."""

    def array(self) -> np.ndarray | None:
        """The numbers, or None if it holds other things or is damaged."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, kind, fortran, data = self.state
        layout = kind.layout() if isinstance(kind, NumpyType) else None
        if (
            layout is None
            or type(shape) is not tuple
            or not isinstance(data, (bytes, bytearray))
            or len(shape) > MAX_AXES // 2
        ):
            return None
        whole = all(type(size) is int and 0 <= size < 2**31 for size in shape)
        if not whole or math.prod(shape) * layout.itemsize != len(data):
            return None
        return np.frombuffer(data, layout).reshape(shape, order="F" if fortran else "C")


def numpy_scalar(meter: Meter, kind: Any, data: Any = None) -> Any:
    layout = kind.layout() if isinstance(kind, NumpyType) else None
    if layout is None or type(data) is not bytes or len(data) != layout.itemsize:
        return Placeholder()
    return np.frombuffer(data, layout)[0].item()


def numpy_from_buffer(meter: Meter, data: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> NumpyArray:
    result = NumpyArray()
    result.state = (1, shape, kind, order == "F", data)
    return result


def dill_array(meter: Meter, function: Any, arguments: Any, state: Any, *_: Any) -> NumpyArray:
    """How dill writes an array: the name of `_reconstruct`, its arguments, and the state."""
    if not isinstance(function, Function):
        raise ValueError("an array made in an unusual way")
    result = NumpyArray()
    result.state = state
    return result


def encode_latin1(meter: Meter, text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise CheckpointError(
            f"refused: the file asks for the codec {printable(encoding)!r}, which no policy checkpoint needs"
        )
    if not isinstance(text, str):
        raise ValueError("the codec is asked for something that is no text")
    meter.spend(len(text))
    return text.encode("latin1")


def byte_array(meter: Meter, data: Any = b"", *encoding: Any) -> bytes:
    if encoding:
        return encode_latin1(meter, data, *encoding)
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("a bytearray of an unusual argument")
    meter.spend(len(data))
    return bytes(data)


def complex_number(meter: Meter, real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError("a complex number of unusual parts")
    return complex(real, imaginary)


# ---- texts ----
def printable(text: Any) -> str:
    """Foreign text for an error message: short, printable."""
    text = text if isinstance(text, str) else type(text).__name__
    return (text if text.isprintable() else ascii(text))[:200]


def refused(module: Any, name: Any) -> CheckpointError:
    return CheckpointError(
        f"refused: the file asks for {printable(module)}.{printable(name)}, "
        "which no policy checkpoint needs and which could run code. "
        "Nothing was executed. Do not use this file unless you trust its author; then convert it where it was written"
    )


def placeholder(module: str, name: str) -> type[Placeholder]:
    """A class that keeps nothing but this name."""
    return type("Placeholder", (Placeholder,), {"foreign": f"{printable(module)}.{printable(name)}"})
