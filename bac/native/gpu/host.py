"""The kernels' CPU forms: their phases compiled for the processor, to test them where there is no GPU.

Thread blocks run one after another between barriers. With `threads`, every warp of every thread block is a thread, so
that a race detector sees what a barrier that is missing would do.
"""

from __future__ import annotations

import ctypes
import hashlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bac.native.compiler import find_compiler
from bac.native.errors import CompilerMissing
from bac.native.gpu.shares import WARPS, Device, Launch, Shape, macros_of
from bac.native.gpu.structs import Fused, Params, fused_macros

FOLDER = Path(__file__).parent
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Wno-unknown-pragmas")


class HostMachine:
    """Stands for a GPU.

    Args:
        blocks: thread blocks at most, as a GPU has multiprocessors.
        shared: bytes of shared memory of each.
        threads: a thread for each warp.
        folder: keeps the compiled libraries; a temporary one unless given.
        flags: further ones of the compiler, such as -fsanitize=thread.
        exact: sizes of a model are constants, as they are for a GPU.
    """

    def __init__(
        self,
        blocks: int = 3,
        shared: int = 227 * 1024,
        threads: bool = False,
        folder: Path | None = None,
        flags: tuple[str, ...] = (),
        exact: bool = False,
    ):
        self.limits = Device(blocks, shared, 50 * 2**20)
        self.device, self.threads, self.flags, self.exact = torch.device("cpu"), threads, flags, exact
        self._temporary = None if folder else tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or ".")
        self.words = "on the CPU"

    def prepare(self, shape: Shape, launch: Launch) -> Callable[[Params, int], None]:
        """The kernel of one number of groups; every library has both formats of weights.

        Raises:
            CompilerMissing: there is no compiler, or it failed.
        """
        library = ctypes.CDLL(str(self._compiled(shape, launch)))
        library.bac_denoise.argtypes = [ctypes.POINTER(Params), ctypes.c_int, ctypes.c_int]

        def start(params: Params, blocks: int) -> None:
            if library.bac_denoise(ctypes.byref(params), blocks, int(self.threads)):
                raise ValueError("the kernel was given sizes that do not fit each other")

        return start

    def fused(self, width: int, heads: int) -> Callable[[str, Fused], None]:
        """See `bac.runtime.fused.FusedMachine`; one library for all sizes, unless they are to be exact.

        Raises:
            CompilerMissing: there is no compiler, or it failed.
        """
        sizes = (width, heads) if self.exact else ()
        library = ctypes.CDLL(str(self._library("fused_host.cpp", fused_macros(*sizes))))

        def start(name: str, arguments: Fused) -> None:
            getattr(library, f"bac_{name}")(ctypes.byref(arguments))

        return start

    def _compiled(self, shape: Shape, launch: Launch) -> Path:
        macros = macros_of(shape, launch) if self.exact else {"GROUPS": shape.groups}
        return self._library("host.cpp", macros | {"WARPS": WARPS, "PARAMS": ctypes.sizeof(Params)})

    def _library(self, source: str, macros: dict[str, int]) -> Path:
        defined = [f"-DBAC_{name}={value}" for name, value in macros.items()]
        command = [*find_compiler(), *FLAGS, *self.flags, *defined, str(FOLDER / source)]
        digest = hashlib.sha256(shlex.join(command).encode())
        for file in sorted([*FOLDER.glob("*.hpp"), FOLDER / source]):
            digest.update(file.read_bytes())
        target = self.folder / f"host-{digest.hexdigest()[:16]}.so"
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            built = Path(scratch) / target.name
            result = subprocess.run([*command, "-o", str(built)], capture_output=True, text=True)
            if result.returncode:
                raise CompilerMissing(f"the kernel's CPU form was not compiled: {result.stderr[-2000:]}")
            built.replace(target)
        return target
