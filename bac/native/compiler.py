"""Finding a C++ compiler and running it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bac.native.errors import CacheError, CompilerMissing

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-ffp-contract=fast")
TIMEOUT_S = 900


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


def added_macros(command: list[str], march: str) -> set[str]:
    """Macros that -march=`march` makes the compiler define beyond those it always does: they name instruction sets."""

    def macros(*options: str) -> set[str]:
        # options of $CXX may name instruction sets, too: the comparison is with the bare compiler
        result = _run([*options, "-dM", "-E", "-x", "c++", os.devnull])
        if result.returncode:
            raise CompilerMissing(f"{options[0]} does not know {' '.join(options[1:])}: {result.stderr[-500:]}")
        return {line.split()[1].partition("(")[0] for line in result.stdout.splitlines() if line.startswith("#define ")}

    return macros(*command, f"-march={march}") - macros(command[0])


def compile_library(command: list[str], source: Path, folder: Path, march: str, advice: str) -> bytes:
    """Compiles `source` in a scratch folder inside `folder`; returns the library.

    Raises:
        CompilerMissing: the compiler failed; the message holds its output.
        CacheError: `folder` cannot be written; `advice` says what to do.
    """
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".build-", dir=folder)
    except OSError as error:
        raise CacheError(f"{folder} cannot be written ({error.strerror}): {advice}") from error
    with scratch as name:
        target = Path(name) / "denoiser.so"
        call = [*command, *FLAGS, f"-march={march}", "-o", str(target), str(source)]
        result = _run(call)
        if result.returncode and "No space left on device" in result.stderr:
            raise CacheError(
                f"no space left to compile the native denoiser in {folder} or {tempfile.gettempdir()}: {advice}"
            )
        if result.returncode or not target.is_file():
            output = result.stderr[-2000:] or f"exit status {result.returncode}, no library"
            raise CompilerMissing(
                f"{command[0]} could not compile the native denoiser; use runtime=planned, "
                f"or another compiler through CXX.\n"
                f"$ {shlex.join(call)}\n{output}"
            )
        return target.read_bytes()


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
