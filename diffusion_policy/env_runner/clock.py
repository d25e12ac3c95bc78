"""A world that goes on while the policy thinks, on a simulated clock: no wall-clock enters.

Time is counted in control steps. At step k the environment shows an observation and takes the action of the interval
from k to k + 1. A chunk that is asked for at step k and takes L seconds is there at the first step that is not before
k + L * control_hz: d = ceil(L * control_hz) steps pass meanwhile, one as soon as there is any latency at all, for the
action of step k itself is due when its observation is taken. What the robot does in these d steps is the mode:

- `hold`: it stands still (see `contract.hold_action`), then it executes the whole chunk.
- `async`: it goes on with the actions of its last chunk. Of the new one as many actions are dropped as were executed
  since its observation, for they are late; where the last chunk has run out, and before the first one, the robot stands
  still, and no action is dropped for that time.
- `rtc`: the same, and the new chunk is sampled so that it begins with the actions that will be executed meanwhile
  (Black, Galliker and Levine 2025, "Real-Time Execution of Action Chunking Flow Policies", with the committed actions
  inpainted instead of guided).

The policy computes one chunk at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env_runner.episodes import Episode

THINKING = ("hold", "async", "rtc")


def delay_steps(latency_ms: float, control_hz: float) -> int:
    """Control steps d that pass until a chunk is there that takes so long."""
    # 300 ms at 10 Hz are 3 steps, whatever the product rounds to.
    return math.ceil(round(latency_ms * control_hz / 1e3, 9))


@dataclass(frozen=True)
class Pace:
    """What one environment has to know of the clock.

    Attributes:
        interval: control steps from one request to the next, where the policy is not busy longer than that.
        chunk: Ta, actions that the policy has to give: `interval` of them and those that bridge the next delay.
        commits: actions of the last chunk that the next one has to begin with, at most.
        continues: whether the last chunk goes on while the policy thinks.
    """

    interval: int
    chunk: int
    commits: int
    continues: bool

    def ticks(self, delay: int) -> int:
        """Control steps from a request whose chunk takes `delay` of them to the next request."""
        return max(delay, self.interval) if self.continues else delay + self.interval


@dataclass(frozen=True)
class Clock:
    """Attributes:
        thinking: what the robot does while the policy thinks, one of `THINKING`.
        latencies_ms: of one chunk; with several, each chunk takes one of them, drawn by `seed`, episode and chunk.
        control_hz: control steps per second.

    Raises:
        ValueError: there is no such mode, a latency is negative or not finite, or the rate is not positive.
    """

    thinking: str
    latencies_ms: Sequence[float]
    control_hz: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.thinking not in THINKING:
            raise InputError(f"thinking={self.thinking!r} is not known: use {', '.join(THINKING)}")
        if not self.latencies_ms or not all(0 <= latency < math.inf for latency in self.latencies_ms):
            raise InputError(
                f"latencies of {list(self.latencies_ms)} ms are not possible: give finite ones of at least 0"
            )
        if not 0 < self.control_hz < math.inf:
            raise InputError(f"a control rate of {self.control_hz} Hz is not possible: give one above 0")

    @property
    def longest(self) -> int:
        """Control steps of the slowest chunk."""
        return self.steps(max(self.latencies_ms))

    def steps(self, latency_ms: float) -> int:
        """Control steps of a chunk that takes so long."""
        return delay_steps(latency_ms, self.control_hz)

    @property
    def inpaints(self) -> bool:
        """Whether the policy has to know what is executed until its chunk is there."""
        return self.thinking == "rtc" and self.longest > 0

    def delay(self, episode: Episode, chunk_index: int) -> int:
        """Control steps that this chunk of this episode takes, whatever runs beside it."""
        latencies = self.latencies_ms
        if len(latencies) == 1:
            return self.longest
        (drawn,) = np.random.SeedSequence([self.seed, episode.seed, chunk_index]).generate_state(1, np.uint64)
        return self.steps(latencies[int(drawn % len(latencies))])

    def pace(self, n_action_steps: int, predicted: int) -> Pace:
        """How to act in chunks of `n_action_steps` executed actions with a policy that predicts `predicted`.

        While the last chunk goes on, the policy is asked again early enough that it does not run out: sooner than after
        `n_action_steps` where it predicts too few, and as soon as it is free where that is too late, too.
        """
        if self.thinking == "hold":
            return Pace(interval=n_action_steps, chunk=n_action_steps, commits=0, continues=False)
        longest = self.longest
        interval = max(1, min(n_action_steps, predicted - longest))
        chunk = min(predicted, max(interval, longest) + longest)
        return Pace(interval, chunk, commits=longest if self.inpaints else 0, continues=True)
