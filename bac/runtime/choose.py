"""Runtimes by name. Asking for one that is not available is an error, never a fallback."""

from __future__ import annotations

import torch

from bac.denoiser import model_blocks
from bac.errors import Unavailable
from bac.loop import DenoisingLoop
from bac.runtime.choose_cuda import cuda_sampler
from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.contract import Runtime
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule

RUNTIMES = ("reference", "planned", "compiled")


def make_sampler(
    base: DenoisingLoop,
    schedule: Schedule | None,
    runtime: str,
    precision: str = "fp32",
    threads: int | None = None,
    tokens: int | None = None,
) -> Runtime:
    """The denoising loop of `base` in the named runtime.

    Args:
        schedule: None for the full policy.
        precision: fp32; bf16, int8 or fp16 change the actions slightly and are never chosen for you.
        threads: of the compiled CPU runtime; torch's number when None.
        tokens: of each trajectory, from its first, that are denoised and given back (see `bac.horizon`); None: all.

    Raises:
        Unavailable: it cannot be had here, or has no such option.
    """
    if runtime not in RUNTIMES:
        raise Unavailable(f"unknown runtime {runtime!r}: use {', '.join(RUNTIMES)}")
    model_blocks(base.model)  # refuses what is no denoiser before anything is asked of it
    device: torch.device = base.model.pos_emb.device
    if threads is not None and (runtime != "compiled" or device.type != "cpu"):
        raise Unavailable("threads is an option of runtime=compiled on a CPU: for the others use torch.set_num_threads")
    if runtime == "reference":
        if precision != "fp32":
            raise Unavailable("runtime=reference computes in fp32: it is what the others are compared with")
        return ReferenceSampler(base, schedule, tokens=tokens)
    if runtime == "planned":
        return PlannedSampler(base, schedule, precision, tokens)
    if device.type == "cuda":
        return cuda_sampler(base, schedule, precision, tokens)
    return CompiledCpuSampler(base, schedule, precision, threads, tokens)
