"""The `compiled` runtime on a GPU where no persistent kernel runs: the eager loop as one CUDA graph per batch size.

The loop launches thousands of small kernels; replaying a graph removes the launch cost from the host. Noise is drawn
outside the graph, in the order in which the reference draws it, so seeds keep their meaning.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter

import torch
from torch import Tensor

from bac.errors import Unavailable
from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.runtime.captured_work import CapturedWork
from bac.runtime.contract import TimedParts, scheduled_updates
from bac.runtime.eager import EagerLoop
from bac.runtime.hoisted import Hoisted
from bac.schedule import Schedule


class _Captured:
    """One graph and its fixed input and output buffers.

    Noise is of all tokens, and cut inside the graph, where that costs nothing.
    """

    @torch.inference_mode(False)  # buffers made in inference mode could not be written outside of it
    @torch.no_grad()
    def __init__(self, loop: EagerLoop, inputs: SamplerInputs):
        known, self.tokens = inputs.known, loop.hoisted.tokens
        self.trajectory = torch.zeros_like(known)
        self.noise = known.new_zeros(loop.hoisted.solver.steps, *known.shape)
        self.inputs = inputs.head(self.tokens).clone()
        self.work = CapturedWork(lambda: self._body(loop), known.device)

    def _body(self, loop: EagerLoop) -> Tensor:
        return loop.run(self.trajectory, self.noise, self.inputs, loop.hoisted.memory(self.inputs))

    def replay(self, trajectory: Tensor, noise: list[Tensor | None], inputs: SamplerInputs) -> Tensor:
        self.trajectory.copy_(trajectory)
        drawn = [(slot, draw) for slot, draw in zip(self.noise, noise) if draw is not None]
        if drawn:
            torch._foreach_copy_([slot for slot, _ in drawn], [draw for _, draw in drawn])
        head = inputs.head(self.tokens)
        if self.inputs.mask is not None and head.mask is not None:
            self.inputs.known.copy_(head.known)
            self.inputs.mask.copy_(head.mask)
        if self.inputs.observation is not None and inputs.observation is not None:
            self.inputs.observation.copy_(inputs.observation)
        self.work.replay()
        return self.work.out.clone()


class CudaGraphSampler:
    """Replays the eager loop. The first call with a batch size captures its graph; `prepare_seconds` sums these.

    Args:
        why: why it is no persistent kernel that runs, in words.
    """

    name = "compiled"

    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None = None,
        precision: str = "fp32",
        tokens: int | None = None,
        why: str = "",
    ):
        started = time.perf_counter()
        self.base, self.precision, self.tokens, self.why = base, precision, tokens, why
        self.hoisted = Hoisted(base, schedule, self.name, tokens)
        self._check_device(self.hoisted.device)
        self.loop = self._make_loop(self.hoisted)
        self.schedule = self.hoisted.schedule
        self.bytes_per_weight = self.loop.dtype.itemsize
        self.graphs: dict[tuple, _Captured] = {}
        self.lock = threading.Lock()  # a graph has one set of buffers: calls take turns
        self.chunks = 0
        self.prepare_seconds = time.perf_counter() - started

    def _make_loop(self, hoisted: Hoisted) -> EagerLoop:
        return EagerLoop(hoisted, self.precision)

    def _check(self, out: Tensor, initial: Tensor, noise: list[Tensor | None], inputs: SamplerInputs) -> None:
        """Looks at the first chunk of a graph; what raises here keeps the graph from being used."""

    def _check_device(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise Unavailable(f"CUDA graphs need a policy on a GPU, this one is on {device}")

    def __deepcopy__(self, memo: dict) -> CudaGraphSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return CudaGraphSampler(copy.deepcopy(self.base, memo), self.schedule, self.precision, self.tokens, self.why)

    @property
    def how(self) -> str:
        """What runs, in words."""
        return "CUDA graph" + (f", no persistent kernel: {self.why}" if self.why else "")

    @property
    def block_updates(self) -> Counter[str]:
        return scheduled_updates(self.schedule, self.chunks)

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """See `Runtime.__call__`."""
        self.hoisted.check(inputs)
        initial, noise = self.hoisted.draw(inputs.known, generator)
        observed = None if inputs.observation is None else tuple(inputs.observation.shape)
        key = (tuple(inputs.known.shape), observed, inputs.mask is not None)
        with self.lock:
            graph = self.graphs.get(key)
            if graph is None:
                started = time.perf_counter()
                graph = _Captured(self.loop, inputs)
                torch.cuda.synchronize(self.hoisted.device)
                self.prepare_seconds += time.perf_counter() - started
            out = graph.replay(initial, noise, inputs)
            if key not in self.graphs:
                self._check(out, initial, noise, inputs)
                self.graphs[key] = graph
            self.chunks += 1
            return out

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """See `Runtime.timed_parts`; the scheduler's arithmetic is part of the graph."""
        return {
            "conditioning": lambda: self.hoisted.memory(inputs),
            "scheduler": lambda: self.hoisted.draw(inputs.known, generator),
        }
