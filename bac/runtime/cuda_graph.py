"""The `compiled` runtime on a GPU: the planned loop captured as one CUDA graph per batch size.

The loop launches thousands of small kernels; replaying a graph removes the launch cost from the host. Noise is drawn outside
the graph, in the order in which the reference draws it, so seeds keep their meaning.
"""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from bac.runtime.planned import PlannedSampler
from bac.schedule import Schedule
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators

WARM_UP_RUNS = 3  # before capture, so that libraries have chosen kernels and allocated workspaces


class _Captured:
    """One graph and its fixed input and output buffers."""

    @torch.inference_mode(False)  # buffers made in inference mode could not be written outside of it
    @torch.no_grad()
    def __init__(self, sampler: CudaGraphSampler, condition: Tensor, given: Tensor | None, cond: Tensor | None):
        self.trajectory = torch.zeros_like(condition)
        self.noise = condition.new_zeros(sampler.solver.steps, *condition.shape)
        self.condition = condition.clone()
        self.given = None if given is None else given.clone()
        self.cond = None if cond is None else cond.clone()
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(condition.device)
        stream.wait_stream(torch.cuda.current_stream(condition.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._body(sampler)
        torch.cuda.current_stream(condition.device).wait_stream(stream)
        with torch.cuda.graph(self.graph):
            self.out = self._body(sampler)

    def _body(self, sampler: CudaGraphSampler) -> Tensor:
        memory = sampler.hoist_observation(self.cond, *self.trajectory.shape[:2])
        return sampler.loop(self.trajectory, self.noise, self.condition, self.given, memory)

    def replay(
        self,
        trajectory: Tensor,
        noise: list[Tensor | None],
        condition: Tensor,
        given: Tensor | None,
        cond: Tensor | None,
    ) -> Tensor:
        self.trajectory.copy_(trajectory)
        drawn = [(slot, draw) for slot, draw in zip(self.noise, noise) if draw is not None]
        if drawn:
            torch._foreach_copy_([slot for slot, _ in drawn], [draw for _, draw in drawn])
        if given is not None:
            self.condition.copy_(condition)
            self.given.copy_(given)
        if cond is not None:
            self.cond.copy_(cond)
        self.graph.replay()
        return self.out.clone()


class CudaGraphSampler(PlannedSampler):
    """Replays the planned loop. The first call with a batch size captures its graph; `prepare_seconds` sums these."""

    name = "compiled"

    def __init__(self, base: DiffusionSampler, schedule: Schedule | None = None, precision: str = "fp32"):
        super().__init__(base, schedule, precision)
        if self.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a policy on a GPU, this one is on {self.device}")
        self.graphs: dict[tuple, _Captured] = {}
        self.lock = threading.Lock()  # a graph has one set of buffers: calls take turns
        self.prepare_seconds = 0.0

    @torch.no_grad()
    def __call__(
        self, condition: Tensor, given: Tensor | None, cond: Tensor | None, generator: Generators = None
    ) -> Tensor:
        """See `DiffusionSampler.__call__`: same arguments, same noise."""
        self.check(condition, given, cond)
        initial, noise = self.draw(condition, generator)
        key = (tuple(condition.shape), None if cond is None else tuple(cond.shape), given is not None)
        with self.lock:
            if key not in self.graphs:
                started = time.perf_counter()
                self.graphs[key] = _Captured(self, condition, given, cond)
                torch.cuda.synchronize(self.device)
                self.prepare_seconds += time.perf_counter() - started
            self.chunks += 1
            return self.graphs[key].replay(initial, noise, condition, given, cond)
