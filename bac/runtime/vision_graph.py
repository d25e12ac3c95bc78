"""The vision encoder on a GPU: the policy's own module as one CUDA graph per shape of the observation.

A ResNet-18 is some 75 operations per camera; for a few frames the host needs longer to launch them than the GPU to run
them. The graph is not that of the denoising loop: between the two the policy checks the features, and a
persistent kernel is no graph.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bac.native.errors import NativeError
from bac.runtime.captured_work import CapturedWork
from bac.runtime.vision_checks import EncoderSnapshot

#: largest difference between a graph's first features and PyTorch's, relative to their range. Both round convolutions
#: as PyTorch is set to (TF32 unless that is switched off), perhaps in another order; a stale buffer is far above.
TOLERANCE = 1e-2


class _Captured:
    """One graph and its fixed input buffers, filled by its first replay."""

    @torch.inference_mode(False)  # buffers made in inference mode could not be written outside of it
    @torch.no_grad()
    def __init__(self, module: nn.Module, nobs: Mapping[str, Tensor]):
        self.inputs = {name: torch.zeros_like(value) for name, value in nobs.items()}
        device = next(iter(self.inputs.values())).device
        self.work = CapturedWork(lambda: encode(module, self.inputs), device)

    def replay(self, nobs: Mapping[str, Tensor]) -> Tensor:
        for name, buffer in self.inputs.items():
            buffer.copy_(nobs[name])
        self.work.replay()
        return self.work.out.clone()


def encode(module: nn.Module, nobs: Mapping[str, Tensor]) -> Tensor:
    """Normalised observations [B, To, *shape] by name -> features [B, To, Do], by the module itself."""
    batch_shape = next(iter(nobs.values())).shape[:2]
    features: Tensor = module({name: value.flatten(0, 1) for name, value in nobs.items()})
    return features.unflatten(0, batch_shape)


class EncoderGraph:
    """Encodes observations as `module` (an ObservationEncoder on a GPU) does in evaluation.

    The first call with a shape captures its graph.

    Args:
        module: one for which `why_opaque` is None.

    Attributes:
        prepare_seconds: sum of what capturing took.
    """

    words = "CUDA graph of PyTorch's"

    def __init__(self, module: nn.Module):
        self.module: Any = module
        self.snapshot = EncoderSnapshot(module)
        self.captured: dict[tuple, _Captured] = {}
        self.lock = threading.Lock()  # a graph has one set of buffers: calls take turns
        self.prepare_seconds = 0.0

    def __deepcopy__(self, memo: dict) -> EncoderGraph:
        """The copy of a policy gets graphs of the copied weights."""
        return EncoderGraph(copy.deepcopy(self.module, memo))

    @torch.no_grad()
    def __call__(self, nobs: Mapping[str, Tensor]) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do].

        Raises:
            RuntimeError: see `EncoderSnapshot.check`.
            NativeError: the first features of a graph are not PyTorch's.
        """
        self.snapshot.check()
        nobs = {name: nobs[name] for name in self.module.shapes}
        shape = tuple(tuple(value.shape) for value in nobs.values())
        with self.lock:
            graph = self.captured.get(shape)
            if graph is not None:
                return graph.replay(nobs)
            started = time.perf_counter()
            graph = _Captured(self.module, nobs)
            out = graph.replay(nobs)
            self._check(out, encode(self.module, nobs))
            self.captured[shape] = graph
            self.prepare_seconds += time.perf_counter() - started
            return out

    def _check(self, out: Tensor, expected: Tensor) -> None:
        difference = ((out - expected).abs().max() / (expected.max() - expected.min()).clamp(min=1e-6)).item()
        if not difference <= TOLERANCE:  # also where it is NaN
            raise NativeError(
                f"the CUDA graph of the vision encoder gives other features than PyTorch here, by {difference:.1e} of "
                "their range: use runtime=planned, and report it with your GPU, driver and torch"
            )
