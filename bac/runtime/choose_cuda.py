"""What `compiled` is on a GPU: one persistent kernel where the policy fits, else a CUDA graph. BAC_GPU names one.

Fused kernels in that graph are run only where BAC_GPU asks for them: no GPU has timed them yet.
"""

from __future__ import annotations

import os

import torch

from bac.errors import Unavailable
from bac.loop import DenoisingLoop
from bac.native.gpu.cuda import CudaMachine, why_no_machine
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.fused import FusedSampler, why_not_fused
from bac.runtime.persistent import PersistentSampler, why_not
from bac.schedule import Schedule

CHOICES = ("persistent", "fused", "graph")


def cuda_sampler(
    base: DenoisingLoop, schedule: Schedule | None, precision: str, tokens: int | None
) -> PersistentSampler | FusedSampler | CudaGraphSampler:
    """The kernel, or the graph where $BAC_GPU says so or the kernel does not fit. Its `how` says which one, and why.

    Raises:
        Unavailable: $BAC_GPU names none, or kernels for a policy that does not fit.
        NativeError: kernels fit, and cannot be compiled or loaded.
    """
    wanted = os.environ.get("BAC_GPU")
    if wanted and wanted not in CHOICES:
        raise Unavailable(f"BAC_GPU={wanted} is unknown: use {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, or unset it")
    if wanted == "graph":
        return CudaGraphSampler(base, schedule, precision, tokens, "BAC_GPU=graph")
    device: torch.device = base.model.pos_emb.device
    reason = why_no_machine(device)
    if wanted == "fused":
        reason = reason or why_not_fused(base.model, precision)
        if reason is None:
            return FusedSampler(base, schedule, precision, tokens, CudaMachine(device))
    elif reason is None:
        machine = CudaMachine(device)
        reason = why_not(base.model, precision, tokens, machine.limits)
        if reason is None:
            return PersistentSampler(base, schedule, tokens, machine)
    if wanted:
        raise Unavailable(f"BAC_GPU={wanted} cannot run this policy here: {reason}; unset it for a CUDA graph")
    return CudaGraphSampler(base, schedule, precision, tokens, reason)
