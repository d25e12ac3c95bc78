"""What one update of each kind of block costs on this machine, in time: for schedules that keep to a number of ms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bac.blocks import parse
from bac.denoiser import model_blocks
from bac.errors import Unavailable
from bac.loop import DenoisingLoop, SamplerInputs
from bac.runtime.contract import Runtime
from bac.schedule import Schedule


@dataclass(frozen=True)
class BlockTimes:
    """Whole nanoseconds at the measured batch.

    Attributes:
        blocks: block name -> of one update; the same for all blocks of a kind.
        per_step: of a denoising step in which every block reuses.
    """

    blocks: dict[str, int]
    per_step: int


def block_times(
    loop: DenoisingLoop, inputs: SamplerInputs, make: Callable[[Schedule], Runtime], rounds: int = 15
) -> BlockTimes:
    """Times the full policy, and with each kind of block held after the first step, in turns.

    What a kind costs is the median over rounds of the difference within a round, so a machine that slows down for a
    while disturbs little.

    Args:
        inputs: of the chunks that are denoised together.
        make: the runtime for a schedule, such as `lambda schedule: make_sampler(loop, schedule, "compiled")`.

    Raises:
        Unavailable: a sampler of one step reuses nothing.
    """
    blocks, steps = model_blocks(loop.model), loop.num_inference_steps
    if steps < 2:
        raise Unavailable("a sampler of one step reuses nothing: set the budget in GFLOP, or take more steps")
    kinds = np.array([parse(name).kind for name in blocks])
    samplers = {"": make(Schedule.full(blocks, steps))}
    for kind in dict.fromkeys(kinds.tolist()):
        updates = np.ones((steps, len(blocks)), bool)
        updates[1:, kinds == kind] = False
        samplers[kind] = make(Schedule(updates, blocks))
    seconds: dict[str, list[float]] = {kind: [] for kind in samplers}
    for turn in range(-2, rounds):  # two to warm up
        for kind, sampler in samplers.items():
            started = _now(inputs)
            sampler(inputs, torch.Generator().manual_seed(max(turn, 0)))
            if turn >= 0:
                seconds[kind].append(_now(inputs) - started)
    full = np.array(seconds[""])
    prices = {}
    for kind in samplers:
        if kind:
            saved = float(np.median(full - seconds[kind])) / ((steps - 1) * int((kinds == kind).sum()))
            prices[kind] = max(1, math.ceil(saved * 1e9))
    named = {name: prices[kind] for name, kind in zip(blocks, kinds.tolist())}
    rest = float(np.median(full)) * 1e9 - steps * sum(named.values())
    return BlockTimes(named, max(0, math.ceil(rest / steps)))


def chunk_time(sampler: Runtime, inputs: SamplerInputs, rounds: int = 15) -> int:
    """The median time of an action chunk, in whole nanoseconds, after two to warm up."""
    seconds = []
    for turn in range(-2, rounds):
        started = _now(inputs)
        sampler(inputs, torch.Generator().manual_seed(max(turn, 0)))
        if turn >= 0:
            seconds.append(_now(inputs) - started)
    return math.ceil(float(np.median(seconds)) * 1e9)


def _now(inputs: SamplerInputs) -> float:
    if inputs.known.is_cuda:
        torch.cuda.synchronize(inputs.known.device)
    return time.perf_counter()
