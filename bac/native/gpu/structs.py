"""What the kernels are given: the C structures of params.hpp and fused.hpp."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int32, c_uint32, c_void_p, sizeof

INTEGERS = ("layers", "heads", "width", "numbers", "tokens", "observed", "observation_width", "steps")
WEIGHTS = ("weights", "bias", "norms", "cross_bias", "embed", "position", "final_norm", "head", "head_bias")
TABLES = ("self_mask", "cross_mask", "time_key", "time_bias", "time_value")
#: of the encoder of observed tokens; null where there are none
CONDITION = (
    *("cond_embed", "cond_position", "cond_up", "cond_up_bias", "cond_down", "cond_down_bias"),
    *("key_value", "key_value_bias", "fold_query", "query_bias", "fold_out"),
)
PLAN = ("plan", "ahead")
CALL = ("observation", "initial", "noise", "known", "given", "out")
EXCHANGE = (
    "stored",
    "slopes",
    "cross",
    "cross_slopes",
    "wide",
    "token",
    "projected",
    "key",
    "key_bias",
    "value",
    "barrier",
)


class Params(Structure):
    """The one argument of the kernel; pointers are to the memory of the device that runs it."""

    _fields_ = [
        *((name, c_int32) for name in (*INTEGERS, "half", "resident", "scratch", "groups", "blocks", "causal")),
        *((name, c_float) for name in ("eps", "clip")),
        *((name, c_void_p) for name in (*WEIGHTS, *TABLES, *CONDITION, *PLAN, *CALL)),
        ("noise_stride", c_int32),
        *((name, c_uint32) for name in ("sent", "passed")),
        *((name, c_void_p) for name in EXCHANGE),
    ]


ROW = ("x_gain", "m_gain", "to_x", "to_x0", "to_last", "to_m", "sigma", "clip")
#: tensors that the fused kernels are given, in the order of fused.hpp
TENSORS = (
    *("x", "out", "bias", "total", "gain", "shift", "n"),
    *("qkv", "mask", "y"),
    *("key", "score_bias", "value", "time_key", "time_bias", "time_value", "time_mask"),
    *("out_bias", "branch", "next_gain", "next_shift"),
    *("hidden", "hidden_bias"),
    *("head", "head_bias", "trajectory", "last", "noise", "known", "given", "next", "estimate", "embed", "position"),
)
SIZES = ("items", "tokens", "width", "heads", "condition", "units", "numbers", "noise_stride", "brief_in", "brief_out")
FUSED_WARPS, FUSED_UNITS = 4, 256  # warps of a thread block; hidden units that a warp takes
#: the fused kernels
KERNELS = ("add_norm", "attend", "cross", "gelu", "turn")


class Fused(Structure):
    """The one argument of every fused kernel; pointers are to the memory of the device that runs it."""

    _fields_ = [
        *((name, c_void_p) for name in TENSORS),
        *((name, c_float) for name in (*ROW, "eps", "next_eps", "scale")),
        *((name, c_int32) for name in SIZES),
    ]


def fused_macros(width: int = 0, heads: int = 0) -> dict[str, int]:
    """What fused.hpp is compiled with, whichever compiler it is: for one width of a model, or for all where it is 0."""
    macros = {"GROUPS": 1, "WARPS": FUSED_WARPS, "FUSED_UNITS": FUSED_UNITS, "PARAMS": sizeof(Fused)}
    return macros | ({"FUSED_WIDTH": width, "FUSED_EACH": width // heads} if width else {})
