"""What this machine can do at best: matrix arithmetic and memory reading, measured with PyTorch's own kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bac.blocks import parse
from bac.schedule import Schedule
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion


@dataclass(frozen=True)
class Floors:
    """Best of several runs at the current thread count: fp32 matrix product in GFLOP/s; reading memory in GB/s, once
    from an array the size of the denoiser's weights (cached where the cache is large) and once from a larger one."""

    gflops: float
    weights_gb_per_s: float
    memory_gb_per_s: float


def measure_floors(device: torch.device, weight_bytes: int, repeats: int = 7) -> Floors:
    size = 4096 if device.type == "cuda" else 1024
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    weights = torch.ones(weight_bytes // 4, device=device)
    large = torch.ones(64 * 1024 * 1024, device=device)  # 256 MiB
    return Floors(
        2 * size**3 / _best(lambda: a @ b, device, repeats) / 1e9,
        weights.nbytes / _best(weights.sum, device, repeats) / 1e9,
        large.nbytes / _best(large.sum, device, repeats) / 1e9,
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
