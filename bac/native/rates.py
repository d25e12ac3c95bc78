"""What this processor can do at best, measured with the kernels of the native library itself."""

from __future__ import annotations

from ctypes import byref, c_double

from bac.native import build, engine
from bac.native.errors import NativeError
from bac.native.levels import choose_level
from bac.native.structs import FORMATS

IN_CACHE = 32 << 10  # bytes of weights that stay in a first-level cache


def arithmetic(form: str, threads: int = 1, repeats: int = 50) -> float:
    """GFLOP/s at best of a product with weights of one of `FORMATS` in the first-level cache, all threads together.

    Raises:
        NativeError: the level that runs here does not multiply such weights, or there is no library.
    """
    return _rate(FORMATS[form], threads, IN_CACHE, repeats)


def reading(n_bytes: int, threads: int = 1, repeats: int = 50) -> float:
    """GB/s at best of reading an array of `n_bytes` (32 KiB or more) over and over, one per thread.

    Raises:
        NativeError: there is no library, or too little memory.
    """
    return _rate(-1, threads, n_bytes, repeats)


def _rate(code: int, threads: int, n_bytes: int, repeats: int) -> float:
    engine.check_threads(threads)
    library, rate = build.library(), c_double()
    level = choose_level(library)
    if library.bac_rate(level.number, code, threads, n_bytes, repeats, byref(rate)):
        raise NativeError(f"level {level.name} cannot measure that with {threads} threads and {n_bytes:,} bytes")
    return rate.value
