"""What the kernel is given: the C structures of params.hpp."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int32, c_uint32, c_void_p

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
