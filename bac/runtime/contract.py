"""What a runtime is: a way to carry out a schedule. `reference`, `planned` and `compiled` meet this contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bac.errors import Unavailable
from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.schedule import Schedule

#: name of a part -> work that does that part alone, to be timed: 'conditioning', 'scheduler'
TimedParts = dict[str, Callable[[], object]]

#: what a precision computes in; int8 has no entry: only the native loop multiplies bytes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (*DTYPES, "int8")


@runtime_checkable
class Runtime(Protocol):
    """Samples trajectories of one policy under one schedule.

    Calls share nothing that one of them alters, so they may come from several threads.

    Attributes:
        name: reference, planned or compiled.
        base: the policy's own denoising loop, whose actions the runtime reproduces under the full schedule.
        schedule: which block computes at which step.
        tokens: how many leading tokens of each trajectory are denoised and given back; None: all.
        prepare_seconds: what preparation has taken so far: tables, packing, compilation, graph capture.
        bytes_per_weight: of the blocks' weights as the loop reads them.
        chunks: calls so far; a batch counts once.
    """

    name: str
    base: DenoisingLoop
    schedule: Schedule
    tokens: int | None
    prepare_seconds: float
    bytes_per_weight: int
    chunks: int

    @property
    def block_updates(self) -> Counter[str]:
        """How often each block has computed, over all chunks."""
        ...

    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """Samples trajectories [B, T, D] with the noise that the policy's own loop would draw.

        With `tokens` it gives back the first of them, [B, tokens, D]; noise is drawn for all, in the same order.
        """
        ...

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """The parts of a call that are not the denoiser. What is fused into the denoiser is not among them."""
        ...


def scheduled_updates(schedule: Schedule, chunks: int) -> Counter[str]:
    """Block computations of a runtime that follows its schedule to the letter."""
    return Counter({name: count * chunks for name, count in schedule.updates_per_block.items()})


def check_precision(precision: str, device: torch.device) -> None:
    """Raises:
    Unavailable: the precision is unknown, or not to be had on this device.
    """
    if precision not in PRECISIONS:
        raise Unavailable(f"unknown precision {precision!r}: use {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise Unavailable("precision=fp16 needs a GPU: on a CPU use fp32, bf16 or int8")
    if precision == "int8" and device.type != "cpu":
        raise Unavailable("precision=int8 needs a CPU: on a GPU use fp32, bf16 or fp16")


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """What a runtime in PyTorch computes in.

    Raises:
        Unavailable: the precision is unknown, or not to be had on this device or in PyTorch.
    """
    check_precision(precision, device)
    if precision not in DTYPES:
        raise Unavailable(f"precision={precision} needs runtime=compiled: use that, or another precision")
    return DTYPES[precision]
