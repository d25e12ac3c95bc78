"""Calls of the native denoiser, with its errors as exceptions."""

from __future__ import annotations

import ctypes

from bac.native.errors import NativeError
from bac.native.structs import Call, Model

MAX_THREADS = 1024  # kMaxThreads of layout.hpp


def check_threads(threads: int) -> None:
    """Raises `ValueError` unless the native library can be asked for that many threads."""
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads must lie in 1..{MAX_THREADS}, got {threads}: use the number of cores")


def sample(library: ctypes.CDLL, model: Model, call: Call) -> None:
    """Runs the denoising loop on `call.trajectory`, in place.

    Raises:
        ValueError: more threads than it can be asked for.
        MemoryError: not enough memory for this batch and number of threads.
        NativeError: threads could not be started, or sizes do not fit each other. All threads that were started have
            ended.
    """
    check_threads(call.threads)
    message = ctypes.create_string_buffer(256)
    status = library.bac_sample(ctypes.byref(model), ctypes.byref(call), message, len(message))
    if status == 0:
        return
    text = message.value.decode("utf-8", "replace")
    if status == 1:
        raise NativeError(f"{call.threads} threads could not be started ({text}): use fewer threads")
    if status == 2:
        raise MemoryError(
            f"not enough memory for {call.batch} samples on {call.threads} threads ({text}): "
            "use fewer threads or samples"
        )
    if status == 3:
        raise NativeError(
            f"the native denoiser was given a model or call that does not fit together ({text}): use runtime=planned"
        )
    raise NativeError(f"the native denoiser failed ({text}): use runtime=planned")
