"""Calls of the native denoiser and vision encoder, with its errors as exceptions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from bac.native.errors import NativeError
from bac.native.structs import Call, Encoder, Frames, Model

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
    _run(library.bac_sample, model, call, "denoiser", f"{call.batch} samples", call.threads)


def encode(library: ctypes.CDLL, encoder: Encoder, call: Frames) -> None:
    """Runs the vision encoder on the images of `call`, into its output.

    Raises:
        ValueError, MemoryError, NativeError: as `sample`.
    """
    check_threads(call.threads)
    _run(library.bac_encode, encoder, call, "vision encoder", f"{call.frames} frames", call.threads)


def _run(
    function: Callable[..., int], what: ctypes.Structure, call: ctypes.Structure, name: str, size: str, threads: int
) -> None:
    message = ctypes.create_string_buffer(256)
    status = function(ctypes.byref(what), ctypes.byref(call), message, len(message))
    if status == 0:
        return
    text = message.value.decode("utf-8", "replace")
    if status == 1:
        raise NativeError(f"{threads} threads could not be started ({text}): use fewer threads")
    if status == 2:
        raise MemoryError(f"not enough memory for {size} on {threads} threads ({text}): use fewer threads or samples")
    if status == 3:
        raise NativeError(
            f"the native {name} was given a model or call that does not fit together ({text}): use runtime=planned"
        )
    raise NativeError(f"the native {name} failed ({text}): use runtime=planned")
