"""What compiles the kernels: NVRTC, which every PyTorch for CUDA brings along, or nvcc."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bac.native.errors import CompilerMissing

FOLDER = Path(__file__).parent
SOURCE, FUSED = "kernel.cu", "fused.cu"
#: what each source includes
HEADERS = {
    SOURCE: ("params.hpp", "machine.hpp", "block.hpp", "phases.hpp", "condition.hpp", "loop.hpp"),
    FUSED: ("params.hpp", "machine.hpp", "fused.hpp"),
}
ADVICE = "set BAC_GPU=graph to use a CUDA graph instead"
TIMEOUT_S = 600
LEAST_NVRTC = (11, 8)  # knows Hopper and Ada
_NVRTC = re.compile(r"libnvrtc(-[0-9a-f]+)?\.so(\.[0-9.]+)?")


@dataclass(frozen=True)
class Compiler:
    """Attributes:
    name: what reports call it.
    compile: (architecture such as sm_90, options, source) -> cubin; raises CompilerMissing with the compiler's output.
    """

    name: str
    compile: Callable[[str, tuple[str, ...], str], bytes]


def find_compiler() -> Compiler | None:
    """$NVCC (a command); if that is not set NVRTC of this PyTorch, then nvcc; None if there is none of them.

    Raises:
        CompilerMissing: $NVCC is not a program here.
    """
    chosen = os.environ.get("NVCC")
    if chosen:
        command = shlex.split(chosen)
        if not command or not shutil.which(command[0]):
            raise CompilerMissing(f"NVCC={chosen} is not a program here: correct or unset NVCC, or {ADVICE}")
        return nvcc(command)
    library = _nvrtc_library()
    if library is not None:
        return nvrtc(library)
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    found = shutil.which("nvcc") or next(
        (home + "/bin/nvcc" for home in homes if os.path.isfile(home + "/bin/nvcc")), None
    )
    return None if found is None else nvcc([found])


def nvcc(command: list[str]) -> Compiler:
    """nvcc, a command with further options."""

    def compile_(architecture: str, options: tuple[str, ...], source: str) -> bytes:
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "kernel.cubin"
            call = [*command, "-cubin", f"-arch={architecture}", *options, str(FOLDER / source), "-o", str(target)]
            try:
                result = subprocess.run(
                    call, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CompilerMissing(f"{command[0]} cannot be run ({error}): {ADVICE}") from error
            if result.returncode or not target.is_file():
                output = (result.stdout + result.stderr)[-2000:]
                raise CompilerMissing(
                    f"{command[0]} could not compile the GPU kernel: {ADVICE}.\n$ {shlex.join(call)}\n{output}"
                )
            return target.read_bytes()

    return Compiler(f"nvcc ({command[0]})", compile_)


def nvrtc(library: ctypes.CDLL) -> Compiler:
    """NVRTC, NVIDIA's compiler as a library."""

    def compile_(architecture: str, options: tuple[str, ...], source: str) -> bytes:
        headers = HEADERS[source]
        contents = [(FOLDER / name).read_bytes() for name in headers]
        program, count = ctypes.c_void_p(), len(headers)
        given = [f"--gpu-architecture={architecture}", *options]
        _call(
            library.nvrtcCreateProgram,
            ctypes.byref(program),
            (FOLDER / source).read_bytes(),
            source.encode(),
            count,
            (ctypes.c_char_p * count)(*contents),
            (ctypes.c_char_p * count)(*(name.encode() for name in headers)),
        )
        try:
            arguments = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            if library.nvrtcCompileProgram(program, len(given), arguments):
                log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
                text = log.rstrip(b"\0").decode(errors="replace")[-2000:]
                raise CompilerMissing(f"NVRTC could not compile the GPU kernel for {architecture}: {ADVICE}.\n{text}")
            return _text(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    return Compiler("NVRTC {}.{}".format(*_version(library)), compile_)


def _text(size: Callable[..., int], get: Callable[..., int], program: ctypes.c_void_p) -> bytes:
    length = ctypes.c_size_t()
    _call(size, program, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    _call(get, program, buffer)
    return buffer.raw


def _call(function: Callable[..., int], *arguments: object) -> None:
    status = function(*arguments)
    if status:
        raise CompilerMissing(f"NVRTC failed with status {status}: {ADVICE}")


def _nvrtc_library() -> ctypes.CDLL | None:
    """NVRTC beside this PyTorch, or where the loader finds it."""
    home = Path(torch.__file__).parent
    folders = [home / "lib", *sorted((home.parent / "nvidia").glob("*/lib"))]
    found = [path for folder in folders for path in sorted(folder.glob("libnvrtc*")) if _NVRTC.fullmatch(path.name)]
    version = str(torch.version.cuda or "").partition(".")[0]
    for name in [*map(str, found), *([f"libnvrtc.so.{version}"] if version else [])]:
        try:
            for part in sorted(Path(name).parent.glob("libnvrtc-builtins.so*")) if "/" in name else ():
                ctypes.CDLL(str(part), ctypes.RTLD_GLOBAL)  # NVRTC looks for it by name alone
            library = ctypes.CDLL(name)
        except OSError:
            continue  # of another machine, or without what it needs
        if _version(library) >= LEAST_NVRTC:
            return library
    return None


def _version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return (0, 0) if failed else (major.value, minor.value)
