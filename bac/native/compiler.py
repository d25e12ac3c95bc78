"""Finding a C++ compiler and running it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bac.native.errors import CacheError, CompilerMissing

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-pthread", "-fno-math-errno", "-ffp-contract=fast")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
#: options of each level of the library, from the least to the most demanding, by machine; engine.cpp lists the same
#: levels and what they need. The library chooses among them when it is called. Level amx is avx512_bf16 with the tile
#: unit, from the same object.
LEVELS = {
    "x86_64": {
        "baseline": (),
        "avx2": _AVX2,
        "avx512": _AVX512,
        "avx512_bf16": (*_AVX512, "-mavx512bf16"),
    },
    "aarch64": {
        "baseline": (),
        "neon_dot": ("-march=armv8.2-a+dotprod",),
        "neon_bf16": ("-march=armv8.2-a+dotprod+bf16",),
    },
}
LEVELS["arm64"] = LEVELS["aarch64"]  # as macOS calls it
TIMEOUT_S = 900


def levels() -> dict[str, tuple[str, ...]]:
    """The levels of a library for this machine, with their compiler options."""
    return LEVELS.get(platform.machine(), {"baseline": ()})


def known_levels(command: list[str]) -> dict[str, tuple[str, ...]]:
    """Those of `levels` whose options the compiler knows: an old one makes a library without the others."""
    test = ["-E", "-x", "c++", os.devnull, "-o", os.devnull]
    return {
        level: options
        for level, options in levels().items()
        if not options or _run([*command, *options, *test]).returncode == 0
    }


def requested() -> list[str]:
    """$CXX as a command with its options; empty if it is unset or empty.

    Raises:
        CompilerMissing: its quotes do not match.
    """
    value = os.environ.get("CXX", "")
    try:
        return shlex.split(value)
    except ValueError as error:
        raise CompilerMissing(f"CXX={value} is not a command ({error}): correct or unset CXX") from error


def find_compiler() -> list[str]:
    """$CXX (a command, possibly with options); if that is not set g++, clang++ or c++."""
    chosen = requested()
    if chosen:
        if not shutil.which(chosen[0]):
            raise CompilerMissing(
                f"CXX={chosen[0]} is not a program here: correct or unset CXX, or use runtime=planned"
            )
        return chosen
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    raise CompilerMissing(
        "runtime=compiled on a CPU compiles a small C++ file on first use and found no compiler: "
        "install g++ or clang++ (Debian/Ubuntu: apt install g++; macOS: xcode-select --install), set CXX, "
        "or use runtime=planned; "
        "or compile elsewhere (python -m bac build --output FOLDER) and set BAC_PREBUILT to that folder"
    )


def version(command: list[str]) -> str:
    """First line of what the compiler says of itself."""
    lines = _run([*command, "--version"]).stdout.strip().splitlines()
    return lines[0][:200] if lines else command[0]


def added_macros(command: list[str]) -> set[str]:
    """Macros that the options of $CXX make the compiler define: they name instruction sets that all code then needs."""

    def macros(*options: str) -> set[str]:
        result = _run([*options, "-dM", "-E", "-x", "c++", os.devnull])
        if result.returncode:
            raise CompilerMissing(f"{options[0]} does not know {' '.join(options[1:])}: {result.stderr[-500:]}")
        return {line.split()[1].partition("(")[0] for line in result.stdout.splitlines() if line.startswith("#define ")}

    return macros(*command) - macros(command[0]) if len(command) > 1 else set()


def compile_library(command: list[str], sources: Path, folder: Path, advice: str) -> bytes:
    """Compiles the sources in a scratch folder inside `folder`; returns the library.

    Raises:
        CompilerMissing: the compiler failed; the message holds its output.
        CacheError: `folder` cannot be written; `advice` says what to do.
    """
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".build-", dir=folder)
    except OSError as error:
        raise CacheError(f"{folder} cannot be written ({error.strerror}): {advice}") from error
    with scratch as name:
        known = known_levels(command)
        parts = {"engine": [*(f"-DBAC_LEVEL_{level}" for level in known), str(sources / "engine.cpp")]}
        for level, options in known.items():
            parts[f"level_{level}"] = [*options, f"-DBAC_LEVEL={level}", str(sources / "level.cpp")]
        calls = {f"{name}/{part}.o": [*command, *FLAGS, "-c", *rest] for part, rest in parts.items()}
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(lambda target: _compile(calls[target], target, folder, advice), calls))
        # Of a function of the C++ library that several parts hold a linker takes the first: that of the engine or the
        # least demanding level, which every processor can run.
        target = f"{name}/denoiser.so"
        _compile([*command, "-shared", "-pthread", *calls], target, folder, advice)
        return Path(target).read_bytes()


def _compile(call: list[str], target: str, folder: Path, advice: str) -> None:
    """Raises CompilerMissing, CacheError: there is no `target` afterwards."""
    call = [*call, "-o", target]
    result = _run(call)
    if result.returncode and "No space left on device" in result.stderr:
        raise CacheError(
            f"no space left to compile the native denoiser in {folder} or {tempfile.gettempdir()}: {advice}"
        )
    if result.returncode or not Path(target).is_file():
        output = result.stderr[-2000:] or f"exit status {result.returncode}, no library"
        raise CompilerMissing(
            f"{call[0]} could not compile the native denoiser; use runtime=planned, "
            f"or another compiler through CXX.\n"
            f"$ {shlex.join(call)}\n{output}"
        )


def _run(call: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            call, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise CompilerMissing(
            f"{call[0]} did not finish within {TIMEOUT_S} s: use another compiler through CXX, or runtime=planned"
        ) from error
    except OSError as error:
        raise CompilerMissing(
            f"{call[0]} cannot be run ({error.strerror}): correct or unset CXX, or use runtime=planned"
        ) from error
