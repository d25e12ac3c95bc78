"""The kernel's CPU form: its phases compiled for the processor, to test them where there is no GPU.

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
from bac.native.gpu.shares import WARPS, Device
from bac.native.gpu.structs import Params

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
    """

    def __init__(
        self,
        blocks: int = 3,
        shared: int = 227 * 1024,
        threads: bool = False,
        folder: Path | None = None,
        flags: tuple[str, ...] = (),
    ):
        self.limits = Device(blocks, shared, 50 * 2**20)
        self.device, self.threads, self.flags = torch.device("cpu"), threads, flags
        self._temporary = None if folder else tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or ".")
        self.words = "on the CPU"

    def prepare(self, tile: int, half: bool) -> Callable[[Params, int], None]:
        """The kernel of one tile; every library has both formats of weights.

        Raises:
            CompilerMissing: there is no compiler, or it failed.
        """
        library = ctypes.CDLL(str(self._compiled(tile)))
        library.bac_denoise.argtypes = [ctypes.POINTER(Params), ctypes.c_int, ctypes.c_int]

        def launch(params: Params, blocks: int) -> None:
            ctypes.memset(params.barrier, 0, 4)
            if library.bac_denoise(ctypes.byref(params), blocks, int(self.threads)):
                raise ValueError("the kernel was given sizes that do not fit each other")

        return launch

    def _compiled(self, tile: int) -> Path:
        defined = (f"-DBAC_TILE={tile}", f"-DBAC_WARPS={WARPS}", f"-DBAC_PARAMS={ctypes.sizeof(Params)}")
        command = [*find_compiler(), *FLAGS, *self.flags, *defined, str(FOLDER / "host.cpp")]
        digest = hashlib.sha256(shlex.join(command).encode())
        for source in sorted([*FOLDER.glob("*.hpp"), FOLDER / "host.cpp"]):
            digest.update(source.read_bytes())
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
