"""Settings of the clock of an evaluation, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from bac_workbench.settings.kinds import Kind, choice, list_of, number
from bac_workbench.settings.rules import Problem, Values

STOPPED, REAL, MEASURED = "stopped", "real", "measured"

Clock = choice(STOPPED, REAL)
Thinking = choice("stop", "hold", "async", "rtc")
Milliseconds = number(0, 1e6)
LatencyOrNull = Annotated[
    Milliseconds | list_of(Milliseconds, "[40,55]", distinct=False) | Literal["measured"] | None,
    Kind("milliseconds of at least 0, a list of them such as [40,55], measured or null", null=True),
]


def clock_problems(values: Values) -> Iterator[Problem]:
    clock, thinking, latency = values("eval.clock"), values("eval.thinking"), values("eval.latency_ms")
    if clock == STOPPED:
        if thinking not in (None, "stop"):
            yield "eval.thinking", "with eval.clock=stopped the world waits for the policy: add eval.clock=real"
        if latency is not None:
            yield "eval.latency_ms", "it has no effect with eval.clock=stopped: add eval.clock=real"
    if clock != REAL:
        return
    if thinking == "stop":
        yield "eval.thinking", "with eval.clock=real the world does not wait for the policy: use hold, async or rtc"
    if latency is None:
        yield (
            "eval.latency_ms",
            "eval.clock=real needs it: use milliseconds, a list such as [40,55], or measured",
        )
    if values("task.fps") is None:
        yield "task.fps", "eval.clock=real needs the task's control rate in Hz: give it with +task.fps=..."
    if values("task.n_latency_steps"):
        yield "task.n_latency_steps", "eval.clock=real has latency steps of its own: use task.n_latency_steps=0"
