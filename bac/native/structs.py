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
        *((name, c_void_p) for name in ("memory_slot", "key", "bias", "value", "cross_mask", "trajectory")),
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


def is_half(weight: Tensor) -> bool:
    """Whether half precision holds every weight, as it does those of a checkpoint stored that way."""
    return bool((weight.to(torch.float16).to(torch.float32) == weight).all())


def pack(weight: Tensor, bias: Tensor, keep: Keep, form: str) -> Matrix:
    """Linear weight [n, k] -> panels [n / 16][k][16], zero-padded, in one of `FORMATS`.

    `bfloat` rounds to the nearest; two rows lie side by side there, [n / 16][k / 2][16][2].
    """
    n, k = weight.shape
    padded = torch.zeros(round_up(n), k)
    padded[:n] = weight.detach()
    padded_bias = torch.zeros(round_up(n))
    padded_bias[:n] = bias.detach()
    depth = 2 if form == "bfloat" else 1
    panels = padded.view(-1, LANES, k // depth, depth).transpose(1, 2)
    return Matrix(keep(panels, DTYPES[form]), keep(padded_bias), round_up(n), k, FORMATS[form])


def array(kind: type[Structure], items: Sequence[Structure], keep: Keep) -> Any:
    """A C array of structures."""
    values = (kind * len(items))(*items)
    keep.append(values)
    return values
