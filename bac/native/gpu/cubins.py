"""Compiled kernels, from the user's cache folder or compiled on first use.

A kernel belongs to its sources, to an architecture, and to the sizes of a model and its weights' format. With which
compiler it was made is in its record.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import threading
import time
from pathlib import Path

from bac.native import store
from bac.native.build import cache_folder
from bac.native.errors import CompilerMissing, DamagedLibrary
from bac.native.gpu.compilers import ADVICE, FOLDER, FUSED, HEADERS, SOURCE, find_compiler
from bac.native.gpu.shares import WARPS, Launch, Shape, macros_of
from bac.native.gpu.structs import Params, fused_macros

#: seconds the last compilation in this process took; 0 when none was needed
build_seconds = 0.0
_lock = threading.Lock()  # two threads of a process compile once
_log = logging.getLogger("bac.native")


def options_of(shape: Shape, launch: Launch) -> tuple[str, ...]:
    """Options of the compiler, whichever it is."""
    macros = {**macros_of(shape, launch), "HALF": int(shape.half), "WARPS": WARPS, "PARAMS": ctypes.sizeof(Params)}
    return ("-std=c++17", *(f"-DBAC_{name}={value}" for name, value in macros.items()))


def fused_options_of(width: int, heads: int) -> tuple[str, ...]:
    """Options for the fused kernels of a model of this width."""
    return ("-std=c++17", *(f"-DBAC_{name}={value}" for name, value in fused_macros(width, heads).items()))


def sources_digest(source: str = SOURCE) -> str:
    """SHA-256 of a kernel's sources."""
    digest = hashlib.sha256()
    for name in (source, *HEADERS[source]):
        content = (FOLDER / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def cubin(architecture: str, shape: Shape, launch: Launch) -> bytes:
    """The kernel for an architecture such as sm_90; one that is damaged is compiled anew, which is said in one line.

    Raises:
        CompilerMissing: there is no compiler, or it failed; the message holds its output.
        CacheError: the cache folder is not safe or cannot be written.
    """
    return _cubin(architecture, options_of(shape, launch), SOURCE)


def fused_cubin(architecture: str, width: int, heads: int) -> bytes:
    """The fused kernels, likewise."""
    return _cubin(architecture, fused_options_of(width, heads), FUSED)


def _cubin(architecture: str, options: tuple[str, ...], source: str) -> bytes:
    global build_seconds
    folder, owners = cache_folder(), {os.geteuid()}
    parts = [sources_digest(source), architecture, *options, "NVCC", os.environ.get("NVCC", "")]
    name = f"kernel-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"
    with _lock:
        stored = _stored(folder, name, owners)
        if stored is not None:
            return stored
        compiler = find_compiler()
        if compiler is None:
            raise CompilerMissing(f"neither NVRTC nor nvcc was found to compile the GPU kernel: {ADVICE}")
        store.create(folder, True, ADVICE)
        with store.opened(folder, owners, ADVICE):
            started = time.perf_counter()
            content = compiler.compile(architecture, options, source)
            build_seconds = time.perf_counter() - started
            record = {
                "sources": sources_digest(source),
                "machine": architecture,
                "compiler": compiler.name,
                "processor": "",
                "flags": list(options),
                **{key: [] for key in ("levels", "needs", "unknown_needs")},
            }
            store.write(folder, name, content, record, True, ADVICE, ".cubin")
        return content


def _stored(folder: Path, name: str, owners: set[int]) -> bytes | None:
    if not folder.exists() and not folder.is_symlink():
        return None
    with store.opened(folder, owners, ADVICE) as descriptor:
        try:
            record = store.read_record(descriptor, name, owners)
            return None if record is None else store.read_content(descriptor, record, owners)
        except DamagedLibrary as error:
            _log.warning("the GPU kernel in %s is not used: %s; it is compiled anew", folder, error)
            return None
