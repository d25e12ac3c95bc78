"""The kernels on a GPU, through the CUDA driver that PyTorch uses, on PyTorch's current stream."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

from bac.native.errors import NativeError
from bac.native.gpu.compilers import ADVICE, find_compiler
from bac.native.gpu.cubins import cubin, fused_cubin
from bac.native.gpu.shares import LANES, THREADS, Device, Launch, Shape
from bac.native.gpu.structs import FUSED_WARPS, KERNELS, Fused, Params

LEAST = (8, 0)  # compute capability: Ampere
#: attributes of a device, as the driver numbers them
MULTIPROCESSORS, L2_BYTES, COOPERATIVE, SHARED_BYTES = 16, 38, 95, 97
MAX_DYNAMIC_SHARED = 8  # attribute of a function


def why_no_machine(device: torch.device) -> str | None:
    """Why the kernel cannot run on a GPU, in words; None if it can.

    Raises:
        CompilerMissing: $NVCC is not a program here.
    """
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST:
        return f"a GPU of compute capability {capability[0]}.{capability[1]}, below {LEAST[0]}.{LEAST[1]}"
    if find_compiler() is None:
        return "no compiler for it: neither NVRTC nor nvcc was found"
    try:
        cooperative = _attribute(_driver(), device, COOPERATIVE)
    except NativeError as error:
        return str(error)
    return None if cooperative else "a GPU that cannot launch thread blocks together"


class CudaMachine:
    """One GPU (see `bac.runtime.persistent.Machine`).

    Raises:
        NativeError: the driver cannot be called.
    """

    def __init__(self, device: torch.device):
        self.device, self.driver = device, _driver()
        with torch.cuda.device(device):
            torch.cuda.current_stream(device).synchronize()  # PyTorch makes its context on first use
            limits = (_attribute(self.driver, device, number) for number in (MULTIPROCESSORS, SHARED_BYTES, L2_BYTES))
            self.limits = Device(*limits)
        major, minor = torch.cuda.get_device_capability(device)
        self.architecture = f"sm_{major}{minor}"
        self.words = f"on {torch.cuda.get_device_name(device)} ({self.architecture})"

    def __deepcopy__(self, memo: dict) -> CudaMachine:
        """A copy of a policy is on the same GPU."""
        return self

    def prepare(self, shape: Shape, launch: Launch) -> Callable[[Params, int], None]:
        """See `bac.runtime.persistent.Machine`.

        Raises:
            NativeError: the kernel cannot be compiled or loaded.
        """
        functions = self._load(cubin(self.architecture, shape, launch), ("denoise",))
        with torch.cuda.device(self.device):
            _call(self.driver, "cuFuncSetAttribute", functions["denoise"], MAX_DYNAMIC_SHARED, self.limits.shared)
        return _Kernel(self, functions["denoise"])

    def fused(self, width: int, heads: int) -> Callable[[str, Fused], None]:
        """See `bac.runtime.fused.FusedMachine`. Launches go to PyTorch's current stream, so a graph captures them.

        Raises:
            NativeError: the kernels cannot be compiled or loaded.
        """
        functions = self._load(fused_cubin(self.architecture, width, heads), KERNELS)

        def launch(name: str, arguments: Fused) -> None:
            pointer = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            blocks = -(-arguments.items // FUSED_WARPS)
            with torch.cuda.device(self.device):
                handle = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
                sizes = (ctypes.c_uint(size) for size in (blocks, 1, 1, FUSED_WARPS * LANES, 1, 1, 0))
                _call(self.driver, "cuLaunchKernel", functions[name], *sizes, handle, pointer, None)

        return launch

    def _load(self, content: bytes, names: tuple[str, ...]) -> dict[str, ctypes.c_void_p]:
        """Functions of a cubin, by their names without the prefix."""
        module, functions = ctypes.c_void_p(), {name: ctypes.c_void_p() for name in names}
        with torch.cuda.device(self.device):
            _call(self.driver, "cuModuleLoadData", ctypes.byref(module), content)
            for name, function in functions.items():
                _call(self.driver, "cuModuleGetFunction", ctypes.byref(function), module, f"bac_{name}".encode())
        return functions


class _Kernel:
    """A loaded kernel. Launches share its exchange buffers: one waits for the one before, also on another stream."""

    def __init__(self, machine: CudaMachine, function: ctypes.c_void_p):
        self.machine, self.function = machine, function
        self.done = torch.cuda.Event()

    def __call__(self, params: Params, blocks: int) -> None:
        driver, device = self.machine.driver, self.machine.device
        pointer = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.done)
            handle = ctypes.c_void_p(stream.cuda_stream)
            sizes = (ctypes.c_uint(size) for size in (blocks, 1, 1, THREADS, 1, 1, params.resident + params.scratch))
            _call(driver, "cuLaunchCooperativeKernel", self.function, *sizes, handle, pointer)
            self.done.record(stream)


def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NativeError(f"the CUDA driver cannot be called ({error}): {ADVICE}") from error


def _attribute(driver: ctypes.CDLL, device: torch.device, number: int) -> int:
    handle, value = ctypes.c_int(), ctypes.c_int()
    index = torch.cuda.current_device() if device.index is None else device.index
    _call(driver, "cuDeviceGet", ctypes.byref(handle), index)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, handle)
    return value.value


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    status = getattr(driver, name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        said = (text.value or b"unknown error").decode(errors="replace")
        raise NativeError(f"{name} of the GPU kernel failed ({status}: {said}): {ADVICE}")
