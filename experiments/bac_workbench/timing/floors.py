"""What this machine can do at best: matrix arithmetic and reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bac.blocks import parse
from bac.native import build, rates
from bac.native.levels import choose_level
from bac.schedule import Schedule
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion

LARGE = 256 * 2**20  # bytes; no cache holds them


@dataclass(frozen=True)
class Floors:
    """Best of several runs at the current thread count.

    Attributes:
        gflops: fp32 matrix product in GFLOP/s.
        weights_gb_per_s: reading an array the size of the denoiser's weights (cached where the cache is large).
        memory_gb_per_s: reading a larger one.
        measured_with: whose kernels. PyTorch's product need not reach what a processor can do.
        bf16_gflops, int8_gflops: product of bfloat16 numbers, and of bytes; None where the native library does not
            multiply them.
    """

    gflops: float
    weights_gb_per_s: float
    memory_gb_per_s: float
    measured_with: str = "PyTorch"
    bf16_gflops: float | None = None
    int8_gflops: float | None = None

    def gflops_of(self, precision: str) -> float:
        """Of a precision; that of fp32 where no other is known."""
        own = {"bf16": self.bf16_gflops, "int8": self.int8_gflops}.get(precision)
        return self.gflops if own is None else own


def measure_floors(device: torch.device, weight_bytes: int, native: bool = False, repeats: int = 7) -> Floors:
    """Measures with PyTorch's kernels, or with those of the native library.

    Raises:
        NativeError: `native`, and there is no library.
    """
    if native:
        return _native_floors(weight_bytes, repeats)
    size = 4096 if device.type == "cuda" else 1024
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    weights = torch.ones(weight_bytes // 4, device=device)
    large = torch.ones(LARGE // 4, device=device)
    return Floors(
        2 * size**3 / _best(lambda: a @ b, device, repeats) / 1e9,
        weights.nbytes / _best(weights.sum, device, repeats) / 1e9,
        large.nbytes / _best(large.sum, device, repeats) / 1e9,
    )


def _native_floors(weight_bytes: int, repeats: int) -> Floors:
    level, threads = choose_level(build.library()), torch.get_num_threads()
    share = max(rates.IN_CACHE, weight_bytes // threads)  # each thread reads its own
    return Floors(
        rates.arithmetic("float", threads),
        rates.reading(share, threads),
        rates.reading(max(share, LARGE // threads), threads, repeats),
        f"the native engine at level {level.name}",
        rates.arithmetic("bfloat", threads) if "bfloat" in level.formats else None,
        rates.arithmetic("byte", threads) if "byte" in level.formats else None,
    )


def _best(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[2:])


def weight_bytes_per_chunk(model: TransformerForDiffusion, schedule: Schedule, bytes_per_weight: int) -> int:
    """Bytes of weight matrices that a chunk must read at least: those of every computed block, once per step.

    Folded cross-attention (`bac.folding`) reads tables instead of weights; they are left out.
    """
    d = model.n_emb
    size = {"sa": 4 * d * d, "ca": 0, "ffn": 8 * d * d}
    return bytes_per_weight * sum(count * size[parse(name).kind] for name, count in schedule.updates_per_block.items())
