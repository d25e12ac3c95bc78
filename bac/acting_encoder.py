"""The observation encoder that a policy acts with while it is accelerated.

The compiled runtime brings one, for encoders that it knows: native code on a CPU, a CUDA graph on a GPU. Otherwise the
policy's own PyTorch module runs, and the report says so.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bac.report import Latencies
from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.persistent import PersistentSampler
from bac.runtime.vision import NativeEncoder, why_unknown
from bac.runtime.vision_checks import why_opaque
from bac.runtime.vision_graph import EncoderGraph

#: normalised observations [B, To, *shape] by name -> features [B, To, Do]
Encode = Callable[[dict[str, Tensor]], Tensor]


FastEncoder = NativeEncoder | EncoderGraph


def fast_encoder(policy: Any, sampler: object) -> tuple[FastEncoder | None, str]:
    """The encoder that goes with a runtime, None where the policy's own does; and which one encodes, in words.

    Raises:
        NativeError: see `bac.native.build.library`.
    """
    if getattr(policy, "obs_encoder", None) is None:
        return None, "none"
    on_gpu = isinstance(sampler, (CudaGraphSampler, PersistentSampler))
    if not on_gpu and not isinstance(sampler, CompiledCpuSampler):
        return None, "PyTorch"
    reason = "this policy lets nothing replace it" if not hasattr(policy, "acting_encoder") else None
    reason = reason or (why_opaque if on_gpu else why_unknown)(policy.obs_encoder)
    if reason is not None:
        return None, f"PyTorch, as {reason}"
    encoder: FastEncoder
    if isinstance(sampler, CompiledCpuSampler):
        precision = sampler.precision
        if precision == "int8":  # its images are not rounded that far
            precision = "bf16" if "bf16" in sampler.level.precisions else "fp32"
        encoder = NativeEncoder(policy.obs_encoder, precision, sampler.threads)
    else:
        encoder = EncoderGraph(policy.obs_encoder)
    return encoder, encoder.words


@contextlib.contextmanager
def acting_with(policy: Any, encoder: Encode | None) -> Iterator[None]:
    """The policy acts with this encoder inside the block; None: with its own."""
    if encoder is None:
        yield
        return
    before, policy.acting_encoder = policy.acting_encoder, encoder
    try:
        yield
    finally:
        policy.acting_encoder = before


class TimedEncoder:
    """An encoder that a policy acts with, timed.

    Attributes:
        latencies: of the calls.
        frames, reused: of one camera, looked at so far, and those among them that were not encoded again.
    """

    def __init__(self, encoder: FastEncoder):
        self.encoder = encoder
        self.latencies = Latencies()
        self.frames = self.reused = 0

    def __deepcopy__(self, memo: dict) -> TimedEncoder:
        """A copy has encoded nothing yet."""
        return type(self)(copy.deepcopy(self.encoder, memo))

    def attach(self, policy: Any) -> None:
        policy.acting_encoder = self

    def detach(self, policy: Any) -> None:
        policy.acting_encoder = None

    def __call__(self, nobs: Mapping[str, Tensor]) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do]."""
        started = time.perf_counter()
        features = self._encode(nobs)
        if features.is_cuda:  # the policy waits for them all the same, as it checks them
            torch.cuda.synchronize(features.device)
        self.latencies.add((time.perf_counter() - started) * 1e3)
        return features

    def _encode(self, nobs: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(nobs.values()))
        self.frames += first.shape[0] * first.shape[1]
        return self.encoder(nobs)


class ReusingEncoder(TimedEncoder):
    """A native encoder that does not encode a frame again that was in the observation before.

    Such frames are found by comparing all their pixels, and a frame's features do not depend on the others: the result
    is the same, bit for bit. Observations overlap where fewer actions are executed between two of them than they have
    frames: with n_obs_steps=2, at n_action_steps=1 or where chunks are asked for at every control step. A GPU's
    libraries choose their kernels by the number of frames: there the result would not be the same.
    """

    encoder: NativeEncoder

    def __init__(self, encoder: NativeEncoder):
        super().__init__(encoder)
        self._last: tuple[dict[str, Tensor], Tensor] | None = None  # images and features of the last observation

    def _encode(self, nobs: Mapping[str, Tensor]) -> Tensor:
        self.encoder.snapshot.check()
        images = {name: nobs[name] for name in self.encoder.names}
        last, batch, steps = self._last, *images[self.encoder.names[0]].shape[:2]
        known = 0 if last is None else _overlap(last[0], images)
        if last is None or known == 0:
            features = self.encoder(nobs)
        else:
            features = last[1][:, -known:].clone() if known < steps else last[1].clone()
            if known < steps:
                rest = self.encoder({name: value[:, known:] for name, value in nobs.items()})
                features = torch.cat([features, rest], dim=1)
            self.encoder.copy_numbers(nobs, features)
        self._last = {name: image.clone() for name, image in images.items()}, features.clone()
        self.frames, self.reused = self.frames + batch * steps, self.reused + batch * known
        return features


def timed(encoder: FastEncoder) -> TimedEncoder:
    """One that reuses frames where that is exact."""
    return ReusingEncoder(encoder) if isinstance(encoder, NativeEncoder) else TimedEncoder(encoder)


def _overlap(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> int:
    """How many of the last frames of one observation are the first ones of the next, of every camera and sample."""
    shape = next(iter(now.values())).shape
    if shape != next(iter(before.values())).shape:
        return 0
    for count in range(shape[1], 0, -1):
        if all(torch.equal(before[name][:, shape[1] - count :], image[:, :count]) for name, image in now.items()):
            return count
    return 0
