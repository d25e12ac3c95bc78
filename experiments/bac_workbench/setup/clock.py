"""The simulated clock of an evaluation in which the world goes on while the policy thinks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bac_workbench.settings.clock import MEASURED, REAL, STOPPED
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.clock import Clock

if TYPE_CHECKING:
    from bac_workbench.setup.experiment import Experiment


def with_entered_clock(experiment: Experiment) -> Experiment:
    """With the clock that the settings describe; unchanged where the world waits, or the latency is to be measured.

    Raises:
        ConfigError: see `with_clock`.
    """
    settings = getattr(experiment.settings, "eval", None)
    if settings is None or settings.clock != REAL or settings.latency_ms == MEASURED:
        return experiment
    entered = settings.latency_ms
    return with_clock(experiment, entered if isinstance(entered, list) else [entered])


def with_clock(experiment: Experiment, latencies_ms: Sequence[float]) -> Experiment:
    """With a world that goes on while the policy computes a chunk for one of `latencies_ms`.

    To act in it the policy has to give `task.pace.chunk` actions, see `giving_chunks`.

    Raises:
        ConfigError: no chunk is there before the episode ends.
    """
    settings, task, policy = experiment.settings, experiment.task, experiment.policy
    clock = Clock(settings.eval.thinking, tuple(map(float, latencies_ms)), float(settings.task.fps), settings.seed)
    if clock.longest >= task.environment.max_steps:
        raise ConfigError(
            f"eval.latency_ms: {max(clock.latencies_ms):g} ms are {clock.longest} control steps at "
            f"{clock.control_hz:g} Hz, and an episode ends after {task.environment.max_steps}: no action would be there"
        )
    whole_only = policy.pred_action_steps_only
    predicted = experiment.chunk if whole_only else policy.horizon - policy.n_obs_steps + 1
    pace = clock.pace(task.chunking.n_action_steps, predicted)
    if whole_only:
        pace = dataclasses.replace(pace, chunk=predicted)
    return dataclasses.replace(experiment, clock=clock, simulated=dataclasses.replace(task, pace=pace))


@contextmanager
def giving_chunks(experiment: Experiment) -> Iterator[None]:
    """Inside, the policy gives as many actions of a chunk as the clock asks for: those that bridge a delay, too."""
    policy, pace = experiment.policy, experiment.task.pace
    before = policy.n_action_steps
    if pace is not None and pace.chunk != before:
        policy.n_action_steps = pace.chunk
    try:
        yield
    finally:
        if policy.n_action_steps != before:
            policy.n_action_steps = before


def clock_facts(experiment: Experiment) -> Any:
    """What an evaluation's results say of its clock: 'stopped', or a record that decides about the episodes."""
    clock = experiment.clock
    if clock is None:
        return STOPPED
    return {
        "thinking": clock.thinking,
        "latency_ms": list(clock.latencies_ms),
        "measured": experiment.settings.eval.latency_ms == MEASURED,
        "control_hz": clock.control_hz,
        "delay_steps": sorted({*map(clock.steps, clock.latencies_ms)}),
        "request_every": experiment.task.pace.interval,
    }


def clock_note(experiment: Experiment) -> str:
    """The clock in words."""
    facts, pace = clock_facts(experiment), experiment.task.pace
    delays = facts["delay_steps"]
    steps = str(delays[0]) if len(delays) == 1 else f"{delays[0]} to {delays[-1]}"
    return (
        f"the world goes on while the policy thinks ({clock_label(facts)}): a chunk takes {steps} control steps at "
        f"{facts['control_hz']:g} Hz, the policy gives {pace.chunk} actions of it and is asked every "
        f"{pace.ticks(delays[-1])} steps"
    )


def clock_label(facts: Any) -> str:
    """'' for a stopped clock, else 'async 52 ms' or 'async 40.1 to 61.7 ms measured'."""
    if facts == STOPPED:
        return ""
    times = sorted(facts["latency_ms"])
    text = f"{times[0]:.4g}" if len(times) == 1 else f"{times[0]:.4g} to {times[-1]:.4g}"
    return f"{facts['thinking']} {text} ms{' measured' if facts['measured'] else ''}"
