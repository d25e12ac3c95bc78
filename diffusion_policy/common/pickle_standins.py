"""What the names in a foreign pickle stand for: one table of inert stand-ins, and a rule for classes of harmless modules.

Nothing here looks up a class or function by the name in the file. A stand-in keeps plain data at most.
"""
from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch

from diffusion_policy.common.config import CheckpointError

MAX_AXES = 64  # of a tensor; PyTorch's own limit


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
            raise CheckpointError(f"refused: the file calls {self.name}(...), which no policy checkpoint needs; do not use it")
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
        if not all(isinstance(part, str) for part in self.parts):
            raise CheckpointError("the file holds a path that is not made of text: it is damaged")
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


def _rebuild_tensor(meter: Meter, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    if isinstance(storage, Placeholder):
        return storage  # of a tensor in a pickle of its own, whose bytes are not opened
    wrong = CheckpointError("the file describes a tensor that cannot exist: it is damaged")
    if type(storage) is not tuple or type(size) is not tuple or type(stride) is not tuple or len(size) > MAX_AXES:
        raise wrong
    key, dtype, storage_size = storage
    integers = (storage_size, offset, *size, *stride)
    if not isinstance(key, str) or not isinstance(dtype, torch.dtype) or not all(type(i) is int and 0 <= i < 2**62 for i in integers) or len(size) != len(stride):
        raise wrong
    return StoredTensor(key, dtype, storage_size, offset, size, stride)


def _rebuild_subclass(meter: Meter, function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A tensor that carries attributes; they are dropped."""
    if function is not ALLOWED["torch._utils", "_rebuild_tensor_v2"] or type(arguments) is not tuple:
        raise ValueError("a tensor of an unusual kind")
    return function.call(meter, arguments)


def _size(meter: Meter, sizes: Any = ()) -> tuple:
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
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(self.code).newbyteorder(order) if order in ("<", ">", "|", "=") else None


class NumpyArray(Inert):
    """numpy.ndarray; its state is (version, shape, type, Fortran order, bytes)."""

    def array(self) -> np.ndarray | None:
        """The numbers, or None if it holds other things or is damaged."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            return None
        _, shape, kind, fortran, data = self.state
        layout = kind.layout() if isinstance(kind, NumpyType) else None
        if layout is None or type(shape) is not tuple or not isinstance(data, (bytes, bytearray)) or len(shape) > MAX_AXES // 2:
            return None
        whole = all(type(size) is int and 0 <= size < 2**31 for size in shape)
        if not whole or math.prod(shape) * layout.itemsize != len(data):
            return None
        return np.frombuffer(data, layout).reshape(shape, order="F" if fortran else "C")


def _numpy_scalar(meter: Meter, kind: Any, data: Any = None) -> Any:
    layout = kind.layout() if isinstance(kind, NumpyType) else None
    if layout is None or type(data) is not bytes or len(data) != layout.itemsize:
        return Placeholder()
    return np.frombuffer(data, layout)[0].item()


def _numpy_from_buffer(meter: Meter, data: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> NumpyArray:
    result = NumpyArray()
    result.state = (1, shape, kind, order == "F", data)
    return result


def _dill_array(meter: Meter, function: Any, arguments: Any, state: Any, *_: Any) -> NumpyArray:
    """How dill writes an array: the name of `_reconstruct`, its arguments, and the state."""
    if not isinstance(function, Function):
        raise ValueError("an array made in an unusual way")
    result = NumpyArray()
    result.state = state
    return result


def _encode(meter: Meter, text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise CheckpointError(f"refused: the file asks for the codec {shown(encoding)!r}, which no policy checkpoint needs")
    if not isinstance(text, str):
        raise ValueError("the codec is asked for something that is no text")
    meter.spend(len(text))
    return text.encode("latin1")


def _bytearray(meter: Meter, data: Any = b"", *encoding: Any) -> bytes:
    if encoding:
        return _encode(meter, data, *encoding)
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError("a bytearray of an unusual argument")
    meter.spend(len(data))
    return bytes(data)


def _complex(meter: Meter, real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError("a complex number of unusual parts")
    return complex(real, imaginary)


# ---- refusals and the table ----
def shown(text: Any) -> str:
    """Foreign text for an error message: short, printable."""
    text = text if isinstance(text, str) else type(text).__name__
    return (text if text.isprintable() else ascii(text))[:200]


def refused(module: Any, name: Any) -> CheckpointError:
    return CheckpointError(
        f"refused: the file asks for {shown(module)}.{shown(name)}, which no policy checkpoint needs and which could run code. "
        "Nothing was executed. Do not use this file unless you trust its author; then convert it where it was written"
    )


_TYPES = (
    "bool", "int", "float", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset", "object", "type", "NoneType",
)


def _load_type(meter: Meter, name: Any) -> Any:
    """How dill writes a built-in type."""
    if not isinstance(name, str) or ("builtins", name) not in ALLOWED:
        raise refused("dill._dill", f"_load_type({shown(name)!r})")
    return ALLOWED["builtins", name]


def placeholder(module: str, name: str) -> type[Placeholder]:
    """A class that keeps nothing but this name."""
    return type("Placeholder", (Placeholder,), {"foreign": f"{shown(module)}.{shown(name)}"})


_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16, "Bool": torch.bool,
    "Byte": torch.uint8, "Char": torch.int8, "Short": torch.int16, "Int": torch.int32, "Long": torch.int64,
}
_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "InterpolationResultNode", "PathNode", "BytesNode",
          "EnumNode", "UnionNode")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_NUMPY = ("numpy.core", "numpy._core")
_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "complex64", "complex128", "int64", "int32", "int16", "int8", "uint8", "bool",
    "double", "float", "half", "long", "int", "short", "strided", "contiguous_format", "preserve_format",
)
_SCALARS = (
    "bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "str_", "bytes_", "longlong", "ulonglong", "intc", "uintc", "datetime64", "timedelta64",
)
# Data that is not needed, of modules whose other names are not harmless.
_DATA = {
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"), "zoneinfo": ("ZoneInfo",),
    "collections": ("deque", "Counter"), "decimal": ("Decimal",), "fractions": ("Fraction",), "uuid": ("UUID", "SafeUUID"),
    "argparse": ("Namespace",), "types": ("SimpleNamespace",), "random": ("Random",), "ipaddress": ("IPv4Address", "IPv6Address"),
    "builtins": ("range", "slice"), "__builtin__": ("xrange", "slice"), "torch": _DTYPES, "numpy": _SCALARS,
    "torch.nn.parameter": ("Parameter", "Buffer"), "torch._tensor": ("Tensor",), "torch.torch_version": ("TorchVersion",),
    "torch.storage": ("UntypedStorage", "TypedStorage"), "torch.serialization": ("_get_layout",),
    "numpy.random._pickle": ("__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor"),
    "numpy.random._mt19937": ("MT19937",), "numpy.random._pcg64": ("PCG64", "PCG64DXSM"), "numpy.random._philox": ("Philox",),
    "numpy.random._sfc64": ("SFC64",), "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "omegaconf.base": ("Metadata", "ContainerMetadata", "SCMode"),
}

ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, name): placeholder(module, name) for module, names in _DATA.items() for name in names},
    ("torch", "Tensor"): placeholder("torch", "Tensor"),
    ("torch.storage", "_load_from_bytes"): placeholder("torch.storage", "_load_from_bytes"),  # a file in the file: not opened
    ("collections", "OrderedDict"): PlainDict,
    ("collections", "defaultdict"): PlainDefaultDict,
    ("_codecs", "encode"): Function(_encode),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(lambda meter, data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(lambda meter, data, *_: data),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_rebuild_subclass),
    **{("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()},
    ("torch", "Size"): Function(_size),
    ("torch", "device"): Function(lambda *_: None),
    ("typing", "Any"): TypeName("Any"),
    **{(module, name): TypeName(name) for module in ("builtins", "__builtin__") for name in (*_TYPES, "long", "unicode")},
    **{(module, "bytearray"): Function(_bytearray) for module in ("builtins", "__builtin__")},
    **{(module, "complex"): Function(_complex) for module in ("builtins", "__builtin__")},
    **{(module, "_load_type"): Function(_load_type) for module in ("dill._dill", "dill.dill")},
    **{(module, "_create_array"): Function(_dill_array) for module in ("dill._dill", "dill.dill")},
    ("omegaconf.dictconfig", "DictConfig"): ConfigDict,
    ("omegaconf.listconfig", "ListConfig"): ConfigList,
    **{("omegaconf.nodes", name): ConfigValue for name in _NODES},
    ("omegaconf.base", "UnionNode"): ConfigValue,
    **{(module, name): StoredPath for module in ("pathlib", "pathlib._local") for name in _PATHS},
    ("numpy", "dtype"): NumpyType,
    ("numpy", "ndarray"): NumpyArray,
    **{(f"{module}.multiarray", "scalar"): Function(_numpy_scalar) for module in _NUMPY},
    **{(f"{module}.multiarray", "_reconstruct"): Function(lambda meter, *_: NumpyArray()) for module in _NUMPY},
    **{(f"{module}.numeric", "_frombuffer"): Function(_numpy_from_buffer) for module in _NUMPY},
}

# Packages whose names can load, run or fetch things: of these, as of the standard library, only the table is accepted.
_TOOLS = sys.stdlib_module_names | {
    "__builtin__", "__builtins__", "copy_reg", "commands", "nt", "posix", "popen2", "torch", "torchvision", "numpy", "scipy", "pandas",
    "sklearn", "dill", "cloudpickle", "joblib", "omegaconf", "hydra", "yaml", "ruamel", "pip", "setuptools", "pkg_resources",
    "_distutils_hack", "IPython", "jupyter", "sh", "plumbum", "fabric", "invoke", "paramiko", "pexpect", "ptyprocess", "psutil",
    "requests", "urllib3", "httpx", "aiohttp", "huggingface_hub", "safetensors", "zarr", "numcodecs", "h5py", "numba", "cffi", "six",
    "future", "ray", "dask", "distributed", "submitit", "mpi4py", "wrapt", "execnet", "django", "flask", "jinja2", "mako", "gevent",
    "twisted", "celery", "asyncssh", "docker", "kubernetes", "tensorflow", "keras", "jax", "sympy", "triton", "cupy", "matplotlib",
}
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{0,99}")  # the convention for classes, PEP 8
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,15}")


def only_a_class(module: str, name: str) -> bool:
    """Whether an unknown name is that of a class of somebody's own code, which a `Placeholder` may stand for.

    Functions are refused, and so is everything of the standard library and of `_TOOLS` but PyTorch's optimizers and layers.
    """
    if len(module) > 300 or not _MODULE.fullmatch(module) or not _CLASS.fullmatch(name):
        return False
    return module.startswith(("torch.optim.", "torch.nn.modules.")) or module.partition(".")[0] not in _TOOLS
