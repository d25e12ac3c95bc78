"""Work on a GPU as one CUDA graph: the host launches it at once instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_RUNS = 3  # before capture, so that libraries have chosen kernels and allocated workspaces


class CapturedWork:
    """What `body` launches, captured once.

    Args:
        body: reads and writes the same memory at every call, and never waits for the GPU.

    Attributes:
        out: what `body` returned; every replay writes it anew.
    """

    def __init__(self, body: Callable[[], Tensor], device: torch.device):
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                body()
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(self.graph):
            self.out = body()

    def replay(self) -> None:
        """Runs it again on what is in its memory now."""
        self.graph.replay()
