"""The `planned` runtime: eager PyTorch that computes only what depends on the noisy trajectory.

Same actions as `reference` to floating-point rounding. What is hoisted out of the loop: time tokens and their folded
keys and values for all K steps (once per model), observation tokens and theirs (once per observation), the scheduler's
coefficients (once), and sums of reused residuals (once per run of steps in which they do not change).
"""

from __future__ import annotations

import copy
import time
from collections import Counter

import torch
from torch import Tensor

from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.runtime.contract import TimedParts, scheduled_updates
from bac.runtime.eager import EagerLoop
from bac.runtime.hoisted import Hoisted
from bac.schedule import Schedule


class PlannedSampler:
    """Denoises with a `Plan`. Holds no per-call state: calls from several threads and of any batch size may interleave.

    Calls from several threads are bit-equal to calls one after the other where every thread computes with one torch
    thread. With `tokens` the actions are those of all tokens to rounding (1e-6), as with another batch size: PyTorch's
    matrix products sum in an order that depends on the number of rows.
    """

    name = "planned"

    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None = None,
        precision: str = "fp32",
        tokens: int | None = None,
    ):
        started = time.perf_counter()
        self.base, self.precision, self.tokens = base, precision, tokens
        self.hoisted = Hoisted(base, schedule, self.name, tokens)
        self.loop = EagerLoop(self.hoisted, precision)
        self.schedule = self.hoisted.schedule
        self.bytes_per_weight = self.loop.dtype.itemsize
        self.chunks = 0
        self.prepare_seconds = time.perf_counter() - started

    def __deepcopy__(self, memo: dict) -> PlannedSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return PlannedSampler(copy.deepcopy(self.base, memo), self.schedule, self.precision, self.tokens)

    @property
    def block_updates(self) -> Counter[str]:
        return scheduled_updates(self.schedule, self.chunks)

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """See `Runtime.__call__`."""
        # A new thread takes over torch.set_num_threads only once it asks, and rounds differently until then.
        torch.get_num_threads()
        self.hoisted.check(inputs)
        initial, noise = self.hoisted.draw(inputs.known, generator)
        memory = self.hoisted.memory(inputs)
        self.chunks += 1
        return self.loop.run(initial, noise, inputs.head(self.tokens), memory)

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """See `Runtime.timed_parts`."""
        known = inputs.head(self.tokens).known
        output, tokens = torch.zeros_like(known), known.shape[1]

        def solve() -> None:
            _, noise = self.hoisted.draw(inputs.known, generator)
            last = None
            for step, drawn in enumerate(noise):
                _, last = self.loop.solve(step, known, output, last, None if drawn is None else drawn[:, :tokens])

        return {"conditioning": lambda: self.hoisted.memory(inputs), "scheduler": solve}
