"""Reads `torch.save` files of the original project without running anything they contain.

A pickle is a program: it names Python objects ("globals") and calls them. Here every name is looked up in one table of
inert stand-ins; any other name ends the reading. Tensors are read straight from the zip archive, OmegaConf nodes become
plain dicts and lists, and neither PyTorch's unpickler nor dill nor OmegaConf's `__setstate__` takes part.
"""
from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.common.config import CheckpointError

_MAX_CONFIG_NODES = 100_000  # a pickle can make one node appear exponentially often


# ---- stand-ins ----
class Sealed:
    """Cannot be altered by the pickle that holds it. (On a class, too, pickle's BUILD fails: it calls this unbound.)"""

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError(f"the file tries to alter a {type(self).__name__}: it is not a policy checkpoint; do not use it")


class Function(Sealed):
    """One of our own functions, standing in for a named one."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class TypeName(Sealed):
    """A built-in type mentioned by name; calling it makes a container, or fails."""

    containers = {"set": set, "frozenset": frozenset, "list": list, "dict": dict, "tuple": tuple}

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if self.name == "bytes" and not arguments:
            return b""  # how protocol 2 writes it
        if self.name not in self.containers:
            raise CheckpointError(f"refused: the file calls {self.name}(...), which no policy checkpoint needs; do not use it")
        return self.containers[self.name](*arguments)


class Inert:
    """An object of a foreign class: keeps the state it was given and does nothing with it."""

    state: Any = None

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class ConfigDict(Inert):
    """omegaconf.DictConfig"""


class ConfigList(Inert):
    """omegaconf.ListConfig"""


class ConfigValue(Inert):
    """A leaf of an OmegaConf tree."""


class PlainDict(dict):
    """OrderedDict; its attributes (a state dict's `_metadata`) are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class PlainDefaultDict(PlainDict):
    """defaultdict without its factory."""

    def __init__(self, factory: Any = None, *items: Any):
        super().__init__(*items)


@dataclass(frozen=True)
class StoredTensor(Sealed):
    """Where a tensor lies in the archive; `TorchArchive.tensor` reads it."""

    key: str
    dtype: torch.dtype
    storage_size: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    key, dtype, storage_size = storage
    integers = (storage_size, offset, *size, *stride)
    if not isinstance(key, str) or not all(type(i) is int and i >= 0 for i in integers) or len(size) != len(stride):
        raise CheckpointError("the file describes a tensor that cannot exist: it is damaged")
    return StoredTensor(key, dtype, storage_size, offset, tuple(size), tuple(stride))


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise CheckpointError(f"refused: the file asks for the codec {encoding!r}, which no policy checkpoint needs")
    return text.encode("latin1")


_TYPES = (
    "bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "object", "type", "NoneType",
)


def _load_type(name: str) -> TypeName:
    """How dill writes a built-in type."""
    if name not in _TYPES:
        raise _refused("dill._dill", f"_load_type({name!r})")
    return TypeName(name)


def _refused(module: str, name: str) -> CheckpointError:
    return CheckpointError(
        f"refused: the file asks for {module}.{name}, which no policy checkpoint needs and which could run code. "
        "Nothing was executed. Do not use this file unless you trust its author; then convert it where it was written"
    )


_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16, "Bool": torch.bool,
    "Byte": torch.uint8, "Char": torch.int8, "Short": torch.int16, "Int": torch.int32, "Long": torch.int64,
}
_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "InterpolationResultNode")

ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): PlainDict,
    ("collections", "defaultdict"): PlainDefaultDict,
    ("_codecs", "encode"): Function(_encode),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(lambda data, *_: data),
    **{("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()},
    ("torch", "Size"): Function(tuple),
    ("torch", "device"): Function(lambda *_: None),
    ("typing", "Any"): TypeName("Any"),
    **{(module, name): TypeName(name) for module in ("builtins", "__builtin__") for name in (*_TYPES, "long", "unicode")},
    **{(module, "_load_type"): Function(_load_type) for module in ("dill._dill", "dill.dill")},
    ("omegaconf.dictconfig", "DictConfig"): ConfigDict,
    ("omegaconf.listconfig", "ListConfig"): ConfigList,
    **{("omegaconf.nodes", name): ConfigValue for name in _NODES},
    ("omegaconf.base", "Metadata"): Inert,
    ("omegaconf.base", "ContainerMetadata"): Inert,
}


# ---- pickles ----
class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # An exact look-up: a dotted name such as ("os", "path.join") is one more name that is not in the table.
        if (module, name) not in ALLOWED:
            raise _refused(module, name)
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> tuple[Any, torch.dtype, Any]:
        """('storage', dtype, key, device, number of elements) -> (key, dtype, number of elements)"""
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError(f"the file refers to an unknown outside object {kind!r}: it is not a policy checkpoint")
        return key, dtype, size


def restricted_loads(data: bytes, what: str = "the pickle") -> Any:
    """The object a pickle describes, made of built-in types and the stand-ins above.

    Raises:
        CheckpointError: it names anything outside `ALLOWED`, or is damaged.
    """
    try:
        return _RestrictedUnpickler(io.BytesIO(data)).load()
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
    except Exception as error:  # hostile or damaged bytes can fail in any way; all of them mean the same
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{what} is damaged, or no policy checkpoint ({reason}): get the file again") from error


def plain_config(root: Any) -> Any:
    """A pickled OmegaConf tree (or plain containers) as dicts, lists, numbers and strings; interpolations stay text."""
    left = _MAX_CONFIG_NODES

    def plain(node: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise CheckpointError(f"the config has more than {_MAX_CONFIG_NODES} entries: it is not a policy checkpoint")
        if isinstance(node, (ConfigDict, ConfigList)):
            return plain(node.state["_content"])
        if isinstance(node, ConfigValue):
            return plain(node.state["_val"])
        if isinstance(node, dict):
            return {plain(key): plain(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [plain(value) for value in node]
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        raise CheckpointError(f"the config holds a {type(node).__name__}; only dicts, lists, numbers and text are read")

    try:
        return plain(root)
    except (KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the config is damaged ({type(error).__name__}: {error}): get the file again") from error


# ---- archives ----
class TorchArchive:
    """A `torch.save` zip file opened for reading; a context manager. Tensors are read only when asked for.

    Attributes:
        payload: what was saved, with a `StoredTensor` for every tensor.
    """

    def __init__(self, path: str | Path):
        again = "it is truncated or damaged: get it again and compare its size with the source"
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError:
            raise
        except Exception as error:  # besides BadZipFile, a damaged directory raises decoding, value and version errors
            raise CheckpointError(f"{path}: {again} ({error})") from error
        try:
            names = self._zip.namelist()
            roots = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(roots) != 1 or f"{roots[0]}constants.pkl" in names:
                raise CheckpointError(f"{path} is a zip file but not one of torch.save (TorchScript is not supported)")
            self._root, self._path = roots[0], path
            if f"{self._root}byteorder" in names and self._read("byteorder") != sys.byteorder.encode():
                raise CheckpointError(f"{path} was written on a machine with another byte order: save it on one like this")
            self.payload = restricted_loads(self._read("data.pkl"), str(path))
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: Any) -> None:
        self._zip.close()

    def _read(self, name: str, size: int | None = None) -> bytes:
        try:
            info = self._zip.getinfo(self._root + name)
            # torch.save never compresses; a compressed record could unfold to any size.
            if info.compress_type != zipfile.ZIP_STORED or size not in (None, info.file_size):
                raise CheckpointError(f"{self._path}: its record {name} is not what torch.save writes: get the file again")
            return self._zip.read(info)
        except (CheckpointError, OSError):
            raise
        except Exception as error:  # as above
            raise CheckpointError(f"{self._path}: its record {name} is missing or damaged: get the file again ({error})") from error

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Reads one tensor onto the CPU."""
        data = bytearray(self._read(f"data/{stored.key}", stored.storage_size * stored.dtype.itemsize))
        if math.prod(stored.size) > stored.storage_size:
            raise CheckpointError(f"{self._path}: a tensor of shape {stored.size} exceeds its storage: the file is damaged")
        flat = torch.frombuffer(data, dtype=stored.dtype) if data else torch.empty(0, dtype=stored.dtype)
        try:
            return flat.as_strided(stored.size, stored.stride, stored.offset)
        except RuntimeError as error:
            raise CheckpointError(f"{self._path}: a tensor exceeds its storage: the file is damaged ({error})") from error
