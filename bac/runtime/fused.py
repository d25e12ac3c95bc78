"""The `compiled` runtime on a GPU with BAC_GPU=fused: a CUDA graph whose steps launch fused kernels.

For batches, bf16 and models that the persistent kernel does not run. The first chunk of every graph is compared with
the plain eager loop's.
"""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor

from bac.denoiser import Denoiser
from bac.errors import Unavailable
from bac.loop import DenoisingLoop, SamplerInputs
from bac.native.errors import NativeError
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.eager import EagerLoop
from bac.runtime.first_chunk import allowed, difference
from bac.runtime.fused_loop import FusedLoop, Kernels
from bac.runtime.hoisted import Hoisted
from bac.schedule import Schedule

#: what the kernels' lanes hold of a row and of a head
MOST_WIDTH, MOST_EACH = 1024, 256
#: in bf16 a chunk may be this far from fp32, and so many times as far as the eager loop's in bf16 is
BRIEF, MOST_TIMES = 2**-6, 3


class FusedMachine(Protocol):
    """What runs the kernels: a GPU, or their CPU form.

    Attributes:
        device: whose memory they read.
        words: what it is, for reports.
    """

    device: torch.device
    words: str

    def fused(self, width: int, heads: int) -> Kernels:
        """The kernels for a model of this width."""
        ...


def why_not_fused(model: Denoiser, precision: str) -> str | None:
    """Why the kernels cannot run a model, in words; None if they can."""
    if precision not in ("fp32", "bf16"):
        return f"precision={precision}"
    if model.encoder_only:
        return "the encoder-only form of the denoiser"
    if model.pos_emb.dtype != torch.float32:
        return f"weights in {model.pos_emb.dtype}"
    each = model.n_emb // model.n_head
    if model.n_emb > MOST_WIDTH or each > MOST_EACH:
        return f"a width of {model.n_emb} in heads of {each}, more than {MOST_WIDTH} in heads of {MOST_EACH}"
    return None


class FusedSampler(CudaGraphSampler):
    """Replays the loop with fused kernels.

    Args:
        machine: what runs the kernels.

    Raises:
        Unavailable: the kernels do not run this model.
        NativeError: they cannot be compiled or loaded.
    """

    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None,
        precision: str,
        tokens: int | None,
        machine: FusedMachine,
    ):
        reason = why_not_fused(base.model, precision)
        if reason is not None:
            raise Unavailable(f"the fused kernels do not run {reason}: set BAC_GPU=graph for a CUDA graph without them")
        self.machine = machine
        self.difference: float | None = None  # the largest of the graphs' first chunks, see `_check`
        super().__init__(base, schedule, precision, tokens)

    def __deepcopy__(self, memo: dict) -> FusedSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return FusedSampler(copy.deepcopy(self.base, memo), self.schedule, self.precision, self.tokens, self.machine)

    def _make_loop(self, hoisted: Hoisted) -> EagerLoop:
        model = hoisted.model
        return FusedLoop(hoisted, self.precision, self.machine.fused(model.n_emb, model.n_head))

    @property
    def how(self) -> str:
        """What runs, in words."""
        text = f"CUDA graph of fused kernels {self.machine.words}"
        if self.difference is None:
            return text
        than = "the eager loop's" if self.precision == "fp32" else "the eager loop's in fp32"
        return text + f"; its first chunk differed from {than} by {self.difference:.1e}"

    def _check(self, out: Tensor, initial: Tensor, noise: list[Tensor | None], inputs: SamplerInputs) -> None:
        """Compares a graph's first chunk with the eager loop's in fp32, from the same noise.

        Raises:
            NativeError: they differ by more than rounding.
        """

        def eager(precision: str) -> Tensor:
            loop = EagerLoop(self.hoisted, precision)
            return loop.run(initial, noise, inputs.head(self.tokens), self.hoisted.memory(inputs))

        expected, most = eager("fp32"), allowed(self.hoisted.solver)
        if self.precision != "fp32":
            most += BRIEF + MOST_TIMES * difference(eager(self.precision), expected)
        found = difference(out, expected)
        if not found <= most:
            raise NativeError(
                f"the fused kernels give other actions here than the eager loop: they differ by {found:.1e}. "
                "Set BAC_GPU=graph for a CUDA graph without them, and please report this with the output of bac doctor"
            )
        self.difference = max(found, self.difference or 0.0)
