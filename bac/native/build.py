"""Compiles the native denoiser for this processor on first use and keeps the library in the user's cache folder."""
from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

SOURCES = ("kernels.hpp", "engine.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-ffp-contract=fast")
#: seconds the last compilation in this process took; 0 when the library came from the cache
build_seconds = 0.0
_loaded: dict[Path, ctypes.CDLL] = {}
_lock = threading.Lock()  # two threads must not compile into the same file


class CompilerMissing(RuntimeError):
    """runtime=compiled was asked for on a CPU but nothing can compile it."""


def cache_folder() -> Path:
    """$BAC_CACHE, or bac/ under the user's cache folder."""
    base = os.environ.get("BAC_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bac"


def find_compiler() -> list[str]:
    """$CXX (a command, possibly with options); if that is not set g++, clang++ or c++."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        if not shutil.which(chosen[0]):
            raise CompilerMissing(f"CXX={chosen[0]} is not a program here: correct or unset CXX, or use runtime=planned")
        return chosen
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise CompilerMissing(
        "runtime=compiled on a CPU compiles a small C++ file on first use and found no compiler: "
        "install g++ or clang++ (Debian/Ubuntu: apt install g++; macOS: xcode-select --install), set CXX, or use runtime=planned"
    )


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
    except OSError:
        return platform.processor() + platform.machine()


def library() -> ctypes.CDLL:
    """The loaded library, compiled if the cache holds none for these sources, compiler and processor.

    Raises:
        CompilerMissing: no compiler, or it failed; the message holds its output.
        OSError: the cache folder cannot be written (set BAC_CACHE).
    """
    global build_seconds
    folder = Path(__file__).parent
    compiler = find_compiler()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    key = hashlib.sha256()
    for part in (*[(folder / name).read_bytes() for name in SOURCES], version.encode(), " ".join(FLAGS).encode(), _processor().encode()):
        key.update(part)
    path = cache_folder() / f"denoiser-{key.hexdigest()[:16]}.so"
    with _lock:
        if path not in _loaded:
            if not path.exists():
                started = time.perf_counter()
                _compile(compiler, folder / "engine.cpp", path)
                build_seconds = time.perf_counter() - started
            _loaded[path] = ctypes.CDLL(str(path))
            _loaded[path].bac_sample.restype = None
        return _loaded[path]


def _compile(compiler: list[str], source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    command = [*compiler, *FLAGS, "-o", str(temporary), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise CompilerMissing(
            f"{compiler[0]} could not compile the native denoiser; use runtime=planned, or another compiler through CXX.\n"
            f"$ {' '.join(command)}\n{result.stderr[-2000:]}"
        )
    os.replace(temporary, path)
