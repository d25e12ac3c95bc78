"""The eager loop with fused kernels between its matrix products (bac/native/gpu/fused.hpp): a GPU launches fewer.

A layer that computes is four products, a self-attention, a cross-attention with the norms around it, a GELU, and a
norm with the additions before it. From one step to the next it is one kernel: reading off, the scheduler, the
embedding. What a block adds is kept until a kernel needs the residual stream, which then adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bac.folding import Folded
from bac.loop import SamplerInputs
from bac.native.gpu.structs import Fused
from bac.runtime.condition import Memory
from bac.runtime.eager import EagerLoop
from bac.runtime.fused_chunk import Chunk
from bac.runtime.hoisted import Hoisted

#: kernel(name, arguments): starts one
Kernels = Callable[[str, Fused], None]


class FusedLoop(EagerLoop):
    """Carries out a plan with the kernels of a machine, on its tensors. Holds no per-call state.

    Args:
        hoisted: of a model for which `bac.runtime.fused.why_not_fused` gives None.
        precision: of the blocks' matrix products, fp32 or bf16.
        kernels: what `FusedMachine.fused` gives for the model.
    """

    @torch.no_grad()
    def __init__(self, hoisted: Hoisted, precision: str, kernels: Kernels):
        super().__init__(hoisted, precision)
        self.kernels = kernels
        embedding = self.model.input_emb
        self.embed = embedding.weight.t().contiguous()  # [E, D]
        self.position = (self.model.pos_emb[0] + embedding.bias).contiguous()  # [T, D]
        time = hoisted.condition.time
        self.time = None if time is None else Folded(*(part.contiguous() for part in (time.key, time.bias, time.value)))

    def start(self, name: str, items: int, tensors: dict[str, Tensor | None], numbers: dict[str, Any]) -> None:
        """Starts a kernel for so many items; tensors must be contiguous, and None is a null pointer."""
        for key, tensor in tensors.items():
            if tensor is not None and not tensor.is_contiguous():
                raise ValueError(f"{key} of the kernel {name} is not contiguous")
        pointers = {key: None if tensor is None else tensor.data_ptr() for key, tensor in tensors.items()}
        self.kernels(name, Fused(items=items, **pointers, **numbers))

    def run(
        self,
        trajectory: Tensor,
        noise: Sequence[Tensor | None] | Tensor,
        inputs: SamplerInputs,
        memory: Memory | None,
    ) -> Tensor:
        """See `EagerLoop.run`.

        Raises:
            ValueError: the inputs are not in fp32.
        """
        if inputs.known.dtype != torch.float32 or trajectory.dtype != torch.float32:
            raise ValueError(f"fused kernels denoise trajectories in fp32, not in {inputs.known.dtype}")
        assert memory is not None  # of every form that is not refused
        tokens = inputs.known.shape[1]
        chunk = Chunk(self, trajectory[:, :tokens].contiguous(), inputs, memory)
        chunk.turn(None, None)
        for step in range(self.hoisted.solver.steps):
            chunk.compute(step)
            chunk.turn(step, noise[step])
        return chunk.trajectory
