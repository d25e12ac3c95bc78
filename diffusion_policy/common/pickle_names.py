"""Which names a foreign pickle may hold: one table, and a rule for classes of somebody's own code."""

from __future__ import annotations

import re
import sys
from typing import Any

import torch

from diffusion_policy.common.pickle_standins import (
    ConfigDict,
    ConfigList,
    ConfigValue,
    Function,
    Meter,
    NumpyArray,
    NumpyType,
    PlainDefaultDict,
    PlainDict,
    StoredPath,
    TypeName,
    byte_array,
    complex_number,
    dill_array,
    encode_latin1,
    numpy_from_buffer,
    numpy_scalar,
    placeholder,
    printable,
    rebuild_tensor,
    refused,
    tensor_size,
)

_TYPES = (
    "bool",
    "int",
    "float",
    "complex",
    "str",
    "bytes",
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "object",
    "type",
    "NoneType",
)


def _load_type(meter: Meter, name: Any) -> Any:
    """How dill writes a built-in type."""
    if not isinstance(name, str) or ("builtins", name) not in ALLOWED:
        raise refused("dill._dill", f"_load_type({printable(name)!r})")
    return ALLOWED["builtins", name]


def _rebuild_subclass(meter: Meter, function: Any, kind: Any, arguments: Any, state: Any = None) -> Any:
    """A tensor that carries attributes; they are dropped."""
    if function is not ALLOWED["torch._utils", "_rebuild_tensor_v2"] or type(arguments) is not tuple:
        raise ValueError("a tensor of an unusual kind")
    return function.call(meter, arguments)


_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
}
_NODES = (
    "AnyNode",
    "StringNode",
    "IntegerNode",
    "FloatNode",
    "BooleanNode",
    "InterpolationResultNode",
    "PathNode",
    "BytesNode",
    "EnumNode",
    "UnionNode",
)
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_NUMPY = ("numpy.core", "numpy._core")
_DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "complex64",
    "complex128",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "double",
    "float",
    "half",
    "long",
    "int",
    "short",
    "strided",
    "contiguous_format",
    "preserve_format",
)
_SCALARS = (
    "bool_",
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "str_",
    "bytes_",
    "longlong",
    "ulonglong",
    "intc",
    "uintc",
    "datetime64",
    "timedelta64",
)
# Data that is not needed, of modules whose other names are not harmless.
_DATA = {
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "zoneinfo": ("ZoneInfo",),
    "collections": ("deque", "Counter"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID", "SafeUUID"),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "random": ("Random",),
    "ipaddress": ("IPv4Address", "IPv6Address"),
    "builtins": ("range", "slice"),
    "__builtin__": ("xrange", "slice"),
    "torch": _DTYPES,
    "numpy": _SCALARS,
    "torch.nn.parameter": ("Parameter", "Buffer"),
    "torch._tensor": ("Tensor",),
    "torch.torch_version": ("TorchVersion",),
    "torch.storage": ("UntypedStorage", "TypedStorage"),
    "torch.serialization": ("_get_layout",),
    "numpy.random._pickle": ("__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor"),
    "numpy.random._mt19937": ("MT19937",),
    "numpy.random._pcg64": ("PCG64", "PCG64DXSM"),
    "numpy.random._philox": ("Philox",),
    "numpy.random._sfc64": ("SFC64",),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "omegaconf.base": ("Metadata", "ContainerMetadata", "SCMode"),
}

ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, name): placeholder(module, name) for module, names in _DATA.items() for name in names},
    ("torch", "Tensor"): placeholder("torch", "Tensor"),
    ("torch.storage", "_load_from_bytes"): placeholder(
        "torch.storage", "_load_from_bytes"
    ),  # a file in the file: not opened
    ("collections", "OrderedDict"): PlainDict,
    ("collections", "defaultdict"): PlainDefaultDict,
    ("_codecs", "encode"): Function(encode_latin1),
    ("torch._utils", "_rebuild_tensor_v2"): Function(rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(lambda meter, data, *_: data),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(lambda meter, data, *_: data),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_rebuild_subclass),
    **{("torch", f"{name}Storage"): dtype for name, dtype in _STORAGES.items()},
    ("torch", "Size"): Function(tensor_size),
    ("torch", "device"): Function(lambda *_: None),
    ("typing", "Any"): TypeName("Any"),
    **{
        (module, name): TypeName(name)
        for module in ("builtins", "__builtin__")
        for name in (*_TYPES, "long", "unicode")
    },
    **{(module, "bytearray"): Function(byte_array) for module in ("builtins", "__builtin__")},
    **{(module, "complex"): Function(complex_number) for module in ("builtins", "__builtin__")},
    **{(module, "_load_type"): Function(_load_type) for module in ("dill._dill", "dill.dill")},
    **{(module, "_create_array"): Function(dill_array) for module in ("dill._dill", "dill.dill")},
    ("omegaconf.dictconfig", "DictConfig"): ConfigDict,
    ("omegaconf.listconfig", "ListConfig"): ConfigList,
    **{("omegaconf.nodes", name): ConfigValue for name in _NODES},
    ("omegaconf.base", "UnionNode"): ConfigValue,
    **{(module, name): StoredPath for module in ("pathlib", "pathlib._local") for name in _PATHS},
    ("numpy", "dtype"): NumpyType,
    ("numpy", "ndarray"): NumpyArray,
    **{(f"{module}.multiarray", "scalar"): Function(numpy_scalar) for module in _NUMPY},
    **{(f"{module}.multiarray", "_reconstruct"): Function(lambda meter, *_: NumpyArray()) for module in _NUMPY},
    **{(f"{module}.numeric", "_frombuffer"): Function(numpy_from_buffer) for module in _NUMPY},
}

# Packages whose names can load, run or fetch things: of these, as of the standard library, only the table is accepted.
_TOOLS = sys.stdlib_module_names | {
    "__builtin__",
    "__builtins__",
    "copy_reg",
    "commands",
    "nt",
    "posix",
    "popen2",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "dill",
    "cloudpickle",
    "joblib",
    "omegaconf",
    "hydra",
    "yaml",
    "ruamel",
    "pip",
    "setuptools",
    "pkg_resources",
    "_distutils_hack",
    "IPython",
    "jupyter",
    "sh",
    "plumbum",
    "fabric",
    "invoke",
    "paramiko",
    "pexpect",
    "ptyprocess",
    "psutil",
    "requests",
    "urllib3",
    "httpx",
    "aiohttp",
    "huggingface_hub",
    "safetensors",
    "zarr",
    "numcodecs",
    "h5py",
    "numba",
    "cffi",
    "six",
    "future",
    "ray",
    "dask",
    "distributed",
    "submitit",
    "mpi4py",
    "wrapt",
    "execnet",
    "django",
    "flask",
    "jinja2",
    "mako",
    "gevent",
    "twisted",
    "celery",
    "asyncssh",
    "docker",
    "kubernetes",
    "tensorflow",
    "keras",
    "jax",
    "sympy",
    "triton",
    "cupy",
    "matplotlib",
}
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]{0,99}")  # the convention for classes, PEP 8
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,15}")


def only_a_class(module: str, name: str) -> bool:
    """Whether an unknown name is that of a class of somebody's own code, which a `Placeholder` may stand for.

    Functions are refused, and so is everything of the standard library and of `_TOOLS` but PyTorch's optimizers and
    layers.
    """
    if len(module) > 300 or not _MODULE.fullmatch(module) or not _CLASS.fullmatch(name):
        return False
    return module.startswith(("torch.optim.", "torch.nn.modules.")) or module.partition(".")[0] not in _TOOLS
