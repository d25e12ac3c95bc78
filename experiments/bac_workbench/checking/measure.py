"""The measurements of a check: actions and times of the setting, the full policy and DDIM in equal time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bac.distances import Screen, sample_chunks, screen
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac.schedule import Schedule
from bac_workbench.checking.numbers import Differences, differences
from bac_workbench.checking.subject import Subject
from bac_workbench.settings.caches import make_cache
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from bac_workbench.timing.latency import Latency, interleaved
from diffusion_policy.common.config import ConfigError

FULL, OTHER_NOISE = "full", "full, other noise"
TRIAL_ROUNDS = 7  # of the times that choose DDIM's steps


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        subject: what is checked.
        latencies: of the setting, of `FULL` and of `ddim`, from one interleaved run.
        screens: distances from the full policy under its own noise: of the setting, of `ddim`, and of `OTHER_NOISE`,
            which is what two draws of the full policy differ by.
        differences: of the setting, in the action's units.
        ddim: name of DDIM with as many steps as take equally long; None: not asked for, or not possible.
        n_states, available: observations that were judged on, and how many are held out.
        notes: what has to be said beside the numbers.
    """

    subject: Subject
    latencies: dict[str, Latency]
    screens: dict[str, Screen]
    differences: Differences
    ddim: str | None
    n_states: int
    available: int
    notes: list[str]


@torch.no_grad()
def measure(subject: Subject, say: Callable[[str], None], progress: Callable[[str, int], None]) -> Measured:
    """Samples and times everything.

    Args:
        say: is told what is done.
        progress: is called with what is going on and how many steps of it are done.

    Raises:
        DatasetError, DistanceError: the observations are damaged, or actions are not finite.
    """
    experiment, notes = subject.experiment, list(subject.experiment.notes)
    settings, policy, recordings = experiment.settings, experiment.policy, experiment.recordings
    observations, available = recordings.sample(recordings.judged, settings.n_states)
    inputs = policy.sampler_inputs(as_tensors(observations))
    if len(inputs) < 2:
        raise ConfigError(f"{recordings.path} holds one observation out, and two are needed at least: use held_out=0.5")
    full = experiment.with_sampler({}).with_cache(make_cache({"method": "full"}))
    samplers = {FULL: sampler_of(full, None, "fp32"), subject.name: sampler_of(experiment, subject.schedule)}
    ddim = None
    if settings.ddim:
        chosen, note = equal_time(full, samplers[subject.name], subject.name)
        notes += [note] if note else []
        if chosen is not None:
            ddim = chosen.sampler_name
            samplers[ddim] = sampler_of(chosen, None, "fp32")
            say(f"{ddim} takes about as long as {subject.name}: it is measured beside it")
    rounds, warmup = settings.timing.n_chunks, settings.timing.warmup
    latencies, _ = interleaved(policy, samplers, 1, rounds, warmup, lambda: progress("timing", 1))
    first, count = settings.seed, settings.n_samples
    chunks = {}
    for name, sampler in samplers.items():
        chunks[name] = sample_chunks(sampler, policy, inputs, range(first, first + count))
        progress("sampling", 1)
    chunks[OTHER_NOISE] = sample_chunks(samplers[FULL], policy, inputs, range(first + count, first + 2 * count))
    progress("sampling", 1)
    return Measured(
        subject=subject,
        latencies=latencies,
        screens={name: screen(chunk, chunks[FULL]) for name, chunk in chunks.items() if name != FULL},
        differences=differences(in_units(policy, chunks[subject.name]), in_units(policy, chunks[FULL]), ranges(policy)),
        ddim=ddim,
        n_states=len(inputs),
        available=available,
        notes=[*notes, *recordings.notes],
    )


def steps_of_work(subject: Subject) -> dict[str, int]:
    """How often `measure` calls `progress`, at most."""
    settings = subject.experiment.settings
    samplers = 3 if settings.ddim else 2
    return {"timing": samplers * (settings.timing.n_chunks + settings.timing.warmup), "sampling": samplers + 1}


def sampler_of(experiment: Experiment, schedule: Schedule | None, precision: str | None = None) -> Runtime:
    settings = experiment.settings
    precision = settings.precision if precision is None else precision
    return make_sampler(experiment.sampler, schedule, settings.runtime, precision, tokens=experiment.tokens.kept)


def equal_time(full: Experiment, method: Runtime, name: str) -> tuple[Experiment | None, str | None]:
    """The full policy with DDIM, of as many steps as take as long as `method`, by the times of two numbers of steps.

    Returns:
        The experiment, and what to note; one of them is None.
    """
    longest = int(full.own_sampler.scheduler.config["num_train_timesteps"])
    low, high = 2, min(16, longest)
    if high <= low:
        return None, f"no DDIM beside it: the policy was trained with {longest} steps"
    try:
        few, many = (full.with_sampler({"type": "ddim", "steps": steps}) for steps in (low, high))
        trial = {name: method, "few": sampler_of(few, None, "fp32"), "many": sampler_of(many, None, "fp32")}
    except ConfigError as error:
        return None, f"no DDIM beside it: {error}"
    times, _ = interleaved(full.policy, trial, 1, TRIAL_ROUNDS)
    took = {
        key: float(np.median(np.subtract(item.milliseconds, item.encoder_milliseconds))) for key, item in times.items()
    }
    per_step = max((took["many"] - took["few"]) / (high - low), 1e-6)
    steps = int(np.clip(round(low + (took[name] - took["few"]) / per_step), 1, longest))
    chosen = full.with_sampler({"type": "ddim", "steps": steps})
    if chosen.sampler_name in (full.own_sampler_name, name.partition("@")[2]):
        return None, f"no DDIM beside it: {chosen.sampler_name}, which takes as long, is this sampler itself"
    return chosen, None


def in_units(policy, chunks: np.ndarray) -> np.ndarray:
    """Normalised chunks [..., D] in the action's units."""
    normalizer = policy.normalizer["action"]
    return normalizer.unnormalize(torch.from_numpy(chunks).to(policy.device)).cpu().numpy()


def ranges(policy) -> np.ndarray:
    """[D], half the range of each dimension of the action seen in training."""
    stats = policy.normalizer["action"].input_stats
    return ((stats["max"] - stats["min"]) / 2).cpu().numpy()
