"""What an accelerated policy says of itself: what it computes, and how long its chunks took."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from bac.errors import Unavailable
from bac.horizon import Tokens

KEPT = 10_000  # latencies


class Latencies:
    """Wall-clock of chunks: the last 10,000, and how many were later than a deadline. Calls may come from any thread.

    Args:
        deadline_ms: milliseconds that a chunk may take; None: any.

    Raises:
        Unavailable: it is no time.
    """

    def __init__(self, deadline_ms: float | None = None):
        number = isinstance(deadline_ms, (int, float)) and not isinstance(deadline_ms, bool)
        if deadline_ms is not None and not (number and math.isfinite(deadline_ms) and deadline_ms > 0):
            raise Unavailable(f"deadline_ms={deadline_ms!r} is no time: give milliseconds above 0, or None")
        self.deadline_ms = deadline_ms
        self.milliseconds: deque[float] = deque(maxlen=KEPT)
        self.timed = self.missed = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict) -> Latencies:
        """A copy has timed nothing yet."""
        return Latencies(self.deadline_ms)

    def add(self, milliseconds: float) -> None:
        with self._lock:
            self.milliseconds.append(milliseconds)
            self.timed += 1
            self.missed += self.deadline_ms is not None and milliseconds > self.deadline_ms

    def percentiles(self) -> dict[str, float] | None:
        """p50, p95, p99 and max of the last 10,000, in milliseconds; None before any."""
        with self._lock:
            ordered = sorted(self.milliseconds)
        if not ordered:
            return None
        last = len(ordered) - 1
        named = {f"p{q}": ordered[min(last, len(ordered) * q // 100)] for q in (50, 95, 99)}
        return {**named, "max": ordered[last]}


@dataclass(frozen=True)
class Report:
    """What an accelerated policy has done. Chunks of the warm-up and of the verification do not count.

    Attributes:
        chunks: action chunks generated (a batch counts once).
        sampler: name of the sampler (see `bac.sampler_name`).
        schedule: what the schedule says of itself; with "made for ..." where that is other weights or another sampler.
        block_updates: block computations counted over these chunks.
        scheduled_updates: block computations the schedule asks for per chunk.
        tokens: those that are denoised, and of how many.
        gflop_per_chunk: arithmetic of one sample's chunk as it is denoised.
        full_gflop_per_chunk: likewise of the full policy: all tokens, every block at every step.
        fewer_by_tokens, fewer_by_schedule: how many times fewer FLOPs because of each; their product is the ratio of
            the two numbers above.
        ms_per_chunk: median wall-clock of `predict_action` in milliseconds, observation encoding included; None before
            any.
        latency: p50, p95, p99 and max of the same, of the last 10,000 calls; None before any.
        deadline_ms: what a chunk may take; None: no deadline was given.
        timed, missed: calls of `predict_action` that were timed, and those of them that took longer than the deadline.
        prepare_seconds: one-off preparation (precomputed tables, packing, compilation or graph capture).
        proof: what the certificate says, where one is followed.
        verified: what the last comparison with the reference found; None: there was none.
        precision: that the runtime computes in.
        how: what runs under the runtime's name, where that says little: on a GPU the persistent kernel or a CUDA graph.
        encoder: what encodes images: 'compiled' with its precision, 'PyTorch' and, where the compiled runtime does not
            do it, why; 'none' for a policy without cameras.
        encoder_ms: median milliseconds of it, where it is compiled and there was a chunk.
        frames, reused_frames: of one camera, and those among them that were not encoded again as the observation
            before had them, too (see `bac.acting_encoder.ReusingEncoder`).
    """

    runtime: str
    sampler: str
    schedule: str
    chunks: int
    block_updates: int
    scheduled_updates: int
    full_updates: int
    tokens: Tokens
    gflop_per_chunk: float
    full_gflop_per_chunk: float
    fewer_by_tokens: float
    fewer_by_schedule: float
    latency: dict[str, float] | None
    deadline_ms: float | None
    timed: int
    missed: int
    prepare_seconds: float
    proof: str | None = None
    verified: str | None = None
    how: str | None = None
    encoder: str = "none"
    encoder_ms: float | None = None
    frames: int = 0
    reused_frames: int = 0
    precision: str = "fp32"

    @property
    def ms_per_chunk(self) -> float | None:
        return None if self.latency is None else self.latency["p50"]

    def __str__(self) -> str:
        ratio = self.full_gflop_per_chunk / self.gflop_per_chunk
        runtime = self.runtime if self.precision == "fp32" else f"{self.runtime} in {self.precision}"
        lines = [
            f"{self.schedule} on {self.sampler}, runtime {runtime}: {self.chunks} chunks, {self._latency_text()}",
            f"block updates per chunk {self.scheduled_updates} of {self.full_updates}, "
            f"{self.block_updates} computed in all; {self.tokens}",
            f"denoiser {self.gflop_per_chunk:.2f} GFLOP per chunk, {ratio:.2f}x fewer than the full policy's "
            f"{self.full_gflop_per_chunk:.2f} (tokens {self.fewer_by_tokens:.2f}x, schedule "
            f"{self.fewer_by_schedule:.2f}x; FLOPs, not time); prepared in {self.prepare_seconds:.2f} s",
        ]
        encoder = None if self.encoder == "none" else self._encoder_text()
        named: dict[str, Any] = {
            "denoiser": self.how,
            "vision encoder": encoder,
            "verified": self.verified,
            "proven": self.proof,
        }
        return "\n".join([*lines, *(f"{name}: {text}" for name, text in named.items() if text is not None)])

    def _encoder_text(self) -> str:
        split = "" if self.encoder_ms is None else f", {self.encoder_ms:.1f} ms of a chunk (median)"
        reused = f", {self.reused_frames} of {self.frames} frames reused" if self.reused_frames else ""
        return self.encoder + split + reused

    def _latency_text(self) -> str:
        if self.latency is None:
            return "no chunk yet"
        times = self.latency
        text = (
            f"{times['p50']:.1f} ms per chunk (median; p95 {times['p95']:.1f}, p99 {times['p99']:.1f}, "
            f"max {times['max']:.1f})"
        )
        if self.deadline_ms is None:
            return text
        return f"{text}, {self.missed} of {self.timed} later than {self.deadline_ms:g} ms"
