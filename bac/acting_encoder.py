"""The observation encoder that a policy acts with while it is accelerated.

The compiled runtime on a CPU brings a native one, for encoders that it knows; otherwise the policy's own PyTorch module
runs, and the report says so.
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
from bac.runtime.vision import NativeEncoder, why_unknown

#: normalised observations [B, To, *shape] by name -> features [B, To, Do]
Encode = Callable[[dict[str, Tensor]], Tensor]


def native_encoder(policy: Any, sampler: object) -> tuple[NativeEncoder | None, str]:
    """The encoder that goes with a runtime, None where the policy's own does; and which one encodes, in words.

    Raises:
        NativeError: see `bac.native.build.library`.
    """
    if getattr(policy, "obs_encoder", None) is None:
        return None, "none"
    if not isinstance(sampler, CompiledCpuSampler):
        return None, "PyTorch"
    reason = "this policy lets nothing replace it" if not hasattr(policy, "acting_encoder") else None
    reason = reason or why_unknown(policy.obs_encoder)
    if reason is not None:
        return None, f"PyTorch, as {reason}"
    precision = sampler.precision
    if precision == "int8":  # its images are not rounded that far
        precision = "bf16" if "bf16" in sampler.level.precisions else "fp32"
    return NativeEncoder(policy.obs_encoder, precision, sampler.threads), f"compiled, {precision}"


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


class ReusingEncoder:
    """A native encoder that does not encode a frame again that was in the observation before.

    Such frames are found by comparing all their pixels, and a frame's features do not depend on the others: the result
    is the same, bit for bit. Observations overlap where fewer actions are executed between two of them than they have
    frames: with n_obs_steps=2, at n_action_steps=1 or where chunks are asked for at every control step.

    Attributes:
        latencies: of the calls.
        frames, reused: of one camera, looked at so far, and those among them that were not encoded again.
    """

    def __init__(self, encoder: NativeEncoder):
        self.encoder = encoder
        self.latencies = Latencies()
        self.frames = self.reused = 0
        self._last: tuple[dict[str, Tensor], Tensor] | None = None  # images and features of the last observation

    def __deepcopy__(self, memo: dict) -> ReusingEncoder:
        """A copy has encoded nothing yet."""
        return ReusingEncoder(copy.deepcopy(self.encoder, memo))

    def attach(self, policy: Any) -> None:
        policy.acting_encoder = self

    def detach(self, policy: Any) -> None:
        policy.acting_encoder = None

    def __call__(self, nobs: Mapping[str, Tensor]) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do]."""
        started = time.perf_counter()
        self.encoder.check()
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
        self.latencies.add((time.perf_counter() - started) * 1e3)
        return features


def _overlap(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> int:
    """How many of the last frames of one observation are the first ones of the next, of every camera and sample."""
    shape = next(iter(now.values())).shape
    if shape != next(iter(before.values())).shape:
        return 0
    for count in range(shape[1], 0, -1):
        if all(torch.equal(before[name][:, shape[1] - count :], image[:, :count]) for name, image in now.items()):
            return count
    return 0
