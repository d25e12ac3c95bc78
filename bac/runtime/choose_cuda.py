"""What `compiled` is on a GPU: a CUDA graph, or with BAC_GPU=persistent one persistent kernel, if the policy fits.

The kernel is not chosen unasked as long as no GPU has run it: its CPU form and its compilation are tested, not itself.
"""

from __future__ import annotations

import os

import torch

from bac.errors import Unavailable
from bac.loop import DenoisingLoop
from bac.native.gpu.cuda import CudaMachine, why_no_machine
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.persistent import PersistentSampler, why_not
from bac.schedule import Schedule

CHOICES = ("persistent", "graph")
UNTRIED = "the persistent kernel fits, but no GPU has run it yet; BAC_GPU=persistent tries it"


def cuda_sampler(
    base: DenoisingLoop, schedule: Schedule | None, precision: str, tokens: int | None
) -> PersistentSampler | CudaGraphSampler:
    """The sampler named by $BAC_GPU, else the graph. Its `how` says which one runs, and why.

    Raises:
        Unavailable: $BAC_GPU names none, or the kernel for a policy that does not fit.
        NativeError: the kernel was asked for, fits, and cannot be compiled or loaded.
    """
    wanted = os.environ.get("BAC_GPU")
    if wanted and wanted not in CHOICES:
        raise Unavailable(f"BAC_GPU={wanted} is unknown: use {' or '.join(CHOICES)}, or unset it")
    if wanted == "graph":
        return CudaGraphSampler(base, schedule, precision, tokens, "BAC_GPU=graph")
    device: torch.device = base.model.pos_emb.device
    reason, machine = why_no_machine(device), None
    if reason is None:
        machine = CudaMachine(device)
        reason = why_not(base.model, precision, tokens, machine.limits)
    if wanted and machine is not None and reason is None:
        return PersistentSampler(base, schedule, tokens, machine)
    if wanted:
        raise Unavailable(f"BAC_GPU=persistent cannot run this policy here: {reason}; unset it for a CUDA graph")
    return CudaGraphSampler(base, schedule, precision, tokens, reason or UNTRIED)
