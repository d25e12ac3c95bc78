"""The `compiled` runtime on a GPU at batch 1: the whole chunk in one launch of one kernel (bac/native/gpu).

One thread block per multiprocessor keeps its share of all weights in shared memory, from the first denoising step to
the last. Thread blocks wait for what the others send, four times for each layer that computes. Other batches, and
inputs of other sizes, go through a CUDA graph.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bac.errors import Unavailable
from bac.loop import DenoisingLoop, Generators, SamplerInputs, check_inputs
from bac.native.errors import NativeError
from bac.native.gpu import packing
from bac.native.gpu.shares import Device, Launch, Shape, launch_of
from bac.native.gpu.structs import Params
from bac.native.packing import block_matrices, is_half
from bac.runtime.contract import TimedParts, scheduled_updates
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.eager import EagerLoop
from bac.runtime.first_chunk import allowed, difference
from bac.runtime.hoisted import Hoisted
from bac.schedule import Schedule


class Machine(Protocol):
    """What runs the kernel: a GPU, or its CPU form.

    Attributes:
        limits: what it has of each thing that limits a launch.
        device: whose memory it reads.
        words: what it is, for reports.
    """

    limits: Device
    device: torch.device
    words: str

    def prepare(self, shape: Shape, launch: Launch) -> Callable[[Params, int], None]:
        """The kernel for a model of this shape: it is started with parameters, on so many thread blocks."""
        ...


def shape_of(model: Any, tokens: int | None) -> Shape:
    """What the size of a launch depends on."""
    kept = model.horizon if tokens is None else tokens
    return Shape(
        layers=len(model.trunk.layers),
        width=model.n_emb,
        heads=model.n_head,
        numbers=model.input_dim,
        tokens=kept,
        observed=model.n_obs_steps if model.obs_as_cond else 0,
        half=all(map(is_half, block_matrices(model))),
        causal=packing.is_causal(model.mask, kept),
    )


def why_not(model: Any, precision: str, tokens: int | None, limits: Device) -> str | None:
    """Why the kernel cannot run a model, in words; None if it can."""
    if precision != "fp32":
        return f"precision={precision}"
    if model.encoder_only:
        return "the encoder-only form of the denoiser"
    if model.n_cond_layers:
        return "condition tokens that attend to each other"
    if model.pos_emb.dtype != torch.float32:
        return f"weights in {model.pos_emb.dtype}"
    launch = launch_of(shape_of(model, tokens), limits)
    return launch if isinstance(launch, str) else None


class PersistentSampler:
    """One kernel at batch 1, else a CUDA graph. Its first chunk is compared with the eager loop.

    Args:
        machine: what runs the kernel.

    Raises:
        Unavailable: the model does not fit the kernel or the machine.
        NativeError: the kernel cannot be compiled or loaded.
    """

    name = "compiled"

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None,
        tokens: int | None,
        machine: Machine,
    ):
        started = time.perf_counter()
        self.base, self.tokens, self.machine = base, tokens, machine
        reason = why_not(base.model, "fp32", tokens, machine.limits)
        if reason is not None:
            raise Unavailable(f"the persistent kernel does not run {reason}: set BAC_GPU=graph for a CUDA graph")
        self.hoisted = Hoisted(base, schedule, self.name, tokens)
        self.schedule = self.hoisted.schedule
        self.shape = replace(shape_of(base.model, tokens), slopes=self.hoisted.plan.ahead is not None)
        launch = launch_of(self.shape, machine.limits)
        assert isinstance(launch, Launch)  # else there was a reason
        self.launch: Launch = launch
        self.kernel = machine.prepare(self.shape, launch)
        self.keep, self.exchange = packing.Pointers(machine.device), packing.Pointers(machine.device)
        self.sent = self.passed = 0  # flags and arrivals of all launches, see `Params`
        self.exchanges = 3 * bool(self.shape.observed) + 2 * sum(len(step) - 1 for step in self.hoisted.plan.steps)
        self.params = self._pack()
        self.bytes_per_weight = 2 if self.shape.half else 4
        self.graph: CudaGraphSampler | None = None
        self.difference: float | None = None  # of the first chunk to that of the eager loop, see `_check`
        self.lock = threading.Lock()  # thread blocks exchange results in one set of buffers: calls take turns
        self.chunks = self.launches = 0
        self.prepare_seconds = self.own_seconds = time.perf_counter() - started

    def __deepcopy__(self, memo: dict) -> PersistentSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return PersistentSampler(copy.deepcopy(self.base, memo), self.schedule, self.tokens, self.machine)

    @property
    def block_updates(self) -> Counter[str]:
        return scheduled_updates(self.schedule, self.chunks)

    @property
    def how(self) -> str:
        """What has run, in words."""
        launch = self.launch
        spilled = launch.share - launch.resident
        where = "in shared memory" if not spilled else f"in shared memory but for {spilled:,} bytes of each share"
        text = (
            f"one persistent kernel {self.machine.words}, {launch.blocks} thread blocks, weights in "
            f"{'half' if self.shape.half else 'float'} precision {where}"
        )
        if self.difference is not None:
            text += f"; its first chunk differed from the eager loop's by {self.difference:.1e}"
        others = self.chunks - self.launches
        return text + (f"; {others} of {self.chunks} chunks by CUDA graph, as batches are" if others else "")

    def _pack(self) -> Params:
        model, keep, shape, hoisted = self.base.model, self.keep, self.shape, self.hoisted
        condition = hoisted.condition
        assert condition.time is not None and condition.folding is not None  # of every form that is not refused
        params = Params(
            layers=shape.layers,
            heads=shape.heads,
            width=shape.width,
            numbers=shape.numbers,
            tokens=shape.tokens,
            observed=shape.observed,
            observation_width=model.cond_dim if shape.observed else 0,
            steps=hoisted.solver.steps,
            half=int(shape.half),
            resident=self.launch.resident,
            scratch=self.launch.scratch,
            groups=shape.groups,
            blocks=self.launch.blocks,
            causal=int(shape.causal),
            eps=model.ln_f.eps,
            clip=hoisted.solver.clip,
            noise_stride=model.horizon * shape.numbers,
            **packing.pack_model(model, shape.tokens, shape.groups, shape.half, self.launch.blocks, keep),
            **packing.pack_tables(model, shape.tokens, shape.observed, condition.time, keep),
            **packing.pack_plan(hoisted.plan, hoisted.solver, shape.layers, keep),
            **(packing.pack_condition(model, shape.observed, condition.folding, keep) if shape.observed else {}),
        )
        stores_cross = any(
            s.store and s.block is not None and s.block % 3 == 1 for step in hoisted.plan.steps for s in step
        )
        room = packing.make_room(params, stores_cross, hoisted.plan.ahead is not None, self.exchange)
        for name, address in room.items():
            setattr(params, name, address)
        return params

    def _takes(self, inputs: SamplerInputs) -> bool:
        """Whether the kernel was made for inputs of this size."""
        observation, known = inputs.observation, inputs.known
        seen = 0 if observation is None or not self.base.model.obs_as_cond else observation.shape[1]
        sized = len(inputs) == 1 and known.shape[1] == self.base.model.horizon and seen == self.shape.observed
        return sized and known.dtype == torch.float32

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """See `Runtime.__call__`. Weights are looked at while the kernel runs, which has its own copy of them."""
        self.hoisted.check_same_device(inputs)
        check_inputs(inputs, self.base.model)
        if not self._takes(inputs):
            self.hoisted.check_unchanged()
            with self.lock:
                if self.graph is None:
                    self.graph = CudaGraphSampler(self.base, self.schedule, "fp32", self.tokens, "other inputs")
                self.chunks += 1
            out = self.graph(inputs, generator)
            self.prepare_seconds = self.own_seconds + self.graph.prepare_seconds
            return out
        initial, noise = self.hoisted.draw(inputs.known, generator)
        with self.lock:
            out = self._run(initial, noise, inputs.head(self.tokens))
            self.hoisted.check_unchanged()
            if self.difference is None:
                self._check(out, initial, noise, inputs)
            self.chunks += 1
            self.launches += 1
        return out

    def _run(self, initial: Tensor, noise: list[Tensor | None], inputs: SamplerInputs) -> Tensor:
        known, keep = inputs.known, packing.Pointers(self.machine.device)
        params, out = Params.from_buffer_copy(self.params), known.new_empty(known.shape)
        drawn = [draw for draw in noise if draw is not None]
        params.initial = keep(initial[:, : self.shape.tokens])
        params.noise = keep(draws_table(drawn)) if drawn else None
        if inputs.observation is not None and self.shape.observed:
            params.observation = keep(inputs.observation)
        if inputs.mask is not None:
            params.known, params.given = keep(known), keep(inputs.mask, torch.uint8)
        params.out = out.data_ptr()
        if self.sent + self.exchanges >= 2**32:  # flags of long ago would be seen again
            if self.machine.device.type == "cuda":
                torch.cuda.synchronize(self.machine.device)  # launches on other streams
            self.exchange.clear()
            self.sent = self.passed = 0
        params.sent, params.passed = self.sent, self.passed
        self.kernel(params, self.launch.blocks)
        self.sent += self.exchanges
        self.passed = (self.passed + self.launch.blocks * bool(self.shape.observed)) % 2**32
        return out

    def _check(self, out: Tensor, initial: Tensor, noise: list[Tensor | None], inputs: SamplerInputs) -> None:
        """Compares the first chunk with the eager loop's, from the same noise: GPUs and their compilers are many.

        Raises:
            NativeError: they differ by more than rounding.
        """
        loop = EagerLoop(self.hoisted)
        expected = loop.run(initial, noise, inputs.head(self.tokens), self.hoisted.memory(inputs))
        found = difference(out, expected)
        if not found <= allowed(self.hoisted.solver):
            raise NativeError(
                f"the persistent kernel gives other actions here than the eager loop: they differ by {found:.1e}. "
                "Set BAC_GPU=graph to use a CUDA graph, and please report this with the output of bac doctor"
            )
        self.difference = found

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """See `Runtime.timed_parts`; the kernel encodes the condition and has the scheduler's arithmetic."""
        return {"scheduler": lambda: self.hoisted.draw(inputs.known, generator)}


def draws_table(draws: list[Tensor]) -> Tensor:
    """Draws [1, T, E] of one chunk one after the other; without a copy where they lie like that already."""
    first, size = draws[0], draws[0].numel()
    start, step = first.data_ptr(), size * first.element_size()
    adjacent = all(
        draw.is_contiguous() and draw.data_ptr() == start + i * step and draw.dtype == torch.float32
        for i, draw in enumerate(draws)
    )
    storage = first.untyped_storage()
    if adjacent and start + len(draws) * step <= storage.data_ptr() + storage.nbytes():
        return first.as_strided((len(draws), size), (size, 1))
    return torch.stack(draws).flatten(1)
