"""The C structures of engine.cpp. A `Keep` collects the tensors whose memory they point into."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p, sizeof
from typing import Any

import torch
from torch import Tensor

from bac.solver import COLUMNS

ABI = 5  # kAbi of layout.hpp
LANES = 16
#: formats of packed weights, numbered as in layout.hpp
FORMATS = {"float": 0, "half": 1, "bfloat": 2}
DTYPES = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16}


class Matrix(Structure):
    _fields_ = [("data", c_void_p), ("bias", c_void_p), ("n", c_int32), ("k", c_int32), ("format", c_int32)]


class Layer(Structure):
    _fields_ = [
        *(
            (name, c_void_p)
            for name in ("norm1_gain", "norm1_shift", "norm2_gain", "norm2_shift", "norm3_gain", "norm3_shift")
        ),
        ("qkv", Matrix),
        ("out", Matrix),
        ("up", Matrix),
        ("down", Matrix),
        *((name, c_void_p) for name in ("cross_bias", "time_key", "time_bias", "time_value")),
        ("key_value", Matrix),
        ("fold_query", POINTER(Matrix)),
        ("fold_out", POINTER(Matrix)),
        ("query_bias", c_void_p),
    ]


class Segment(Structure):
    _fields_ = [(name, c_int32) for name in ("start", "stop", "block", "store", "gap")]


class SolverRow(Structure):
    """One denoising step of the solver's table; the columns are those of `bac.solver`."""

    _fields_ = [(name, c_float) for name in COLUMNS]


class Model(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("layers", "heads", "d", "d_in", "d_out", "tokens", "skip", "cross")),
        *((name, c_int32) for name in ("steps", "stores")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("embed", "position", "time_rows", "self_mask", "final_gain", "final_shift")),
        ("head", Matrix),
        ("layer", POINTER(Layer)),
        ("segments", POINTER(Segment)),
        ("segment_start", c_void_p),
        ("solver", POINTER(SolverRow)),
        ("ahead", c_void_p),
        ("clip", c_float),
    ]


class Call(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("batch", "memory", "threads", "level")),
        *((name, c_void_p) for name in ("token", "memory_slot", "key", "bias", "value")),
        *((name, c_void_p) for name in ("cross_mask", "trajectory")),
        ("noise", POINTER(c_void_p)),
        ("condition", c_void_p),
        ("given", c_void_p),
    ]


def layout() -> list[int]:
    """What `bac_layout` of a library that fits reports: version, lanes, size and field offsets of each structure."""
    numbers = [ABI, LANES]
    for structure in (Matrix, Layer, Segment, SolverRow, Model, Call):
        numbers += [sizeof(structure), *(getattr(structure, field[0]).offset for field in structure._fields_)]
    return numbers


class Keep(list):
    """Tensors kept alive; calling it adds one and returns its address."""

    def __call__(self, tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
        tensor = tensor.detach().to(dtype).contiguous()
        self.append(tensor)
        return tensor.data_ptr()


def round_up(n: int) -> int:
    return -(-n // LANES) * LANES


def array(kind: type[Structure], items: Sequence[Structure], keep: Keep) -> Any:
    """A C array of structures."""
    values = (kind * len(items))(*items)
    keep.append(values)
    return values
