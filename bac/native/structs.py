"""The C structures of engine.cpp. A `Keep` collects the tensors whose memory they point into."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p, sizeof
from typing import Any

import torch
from torch import Tensor

from bac.solver import COLUMNS

ABI = 9  # kAbi of layout.hpp
LANES = 16
#: formats of packed weights, numbered as in layout.hpp
FORMATS = {"float": 0, "half": 1, "bfloat": 2, "byte": 3}
DTYPES = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16, "byte": torch.int8}


#: bytes of a weight, by the number of its format
WEIGHT_BYTES = [DTYPES[form].itemsize for form in FORMATS]


class Matrix(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("data", "bias", "scale", "sums")),
        *((name, c_int32) for name in ("n", "k", "format")),
    ]


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
        *((name, Matrix) for name in ("cond_embed", "cond_up", "cond_down")),
        ("cond_position", c_void_p),
        ("cond_tokens", c_int32),
        ("ahead", c_void_p),
        ("clip", c_float),
    ]


class Call(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("batch", "memory", "threads", "level")),
        *((name, c_void_p) for name in ("observation", "memory_slot", "key", "bias", "value")),
        *((name, c_void_p) for name in ("cross_mask", "trajectory")),
        ("noise", POINTER(c_void_p)),
        ("condition", c_void_p),
        ("given", c_void_p),
    ]


class Norm(Structure):
    """Group normalisation; without groups gain and shift of each channel alone."""

    _fields_ = [("gain", c_void_p), ("shift", c_void_p), ("groups", c_int32), ("eps", c_float)]


class Conv(Structure):
    _fields_ = [
        ("weight", Matrix),
        ("norm", Norm),
        *((name, c_int32) for name in ("channels", "size", "stride", "padding", "tile")),
    ]


class Residual(Structure):
    _fields_ = [("first", Conv), ("second", Conv), ("shortcut", Conv)]


class Camera(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("channels", "height", "width", "top", "left", "crop_height", "crop_width")),
        *((name, c_int32) for name in ("pool", "pool_stride", "pool_padding")),
        ("stem", Conv),
        ("blocks", c_int32),
        ("block", POINTER(Residual)),
        ("keypoint", Matrix),
        ("column", c_void_p),
        ("row", c_void_p),
        ("inverse_temperature", c_float),
        ("keypoints", c_int32),
        ("linear", Matrix),
        ("features", c_int32),
        ("at", c_int32),
    ]


class Encoder(Structure):
    _fields_ = [("cameras", c_int32), ("width", c_int32), ("camera", POINTER(Camera))]


class Frames(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("frames", "threads", "level")),
        ("image", POINTER(c_void_p)),
        ("out", c_void_p),
    ]


STRUCTURES = (Matrix, Layer, Segment, SolverRow, Model, Call, Norm, Conv, Residual, Camera, Encoder, Frames)


def layout() -> list[int]:
    """What `bac_layout` of a library that fits reports: version, lanes, size and field offsets of each structure."""
    numbers = [ABI, LANES]
    for structure in STRUCTURES:
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
