"""What can be known without rolling candidates out: times on this machine, and distances on visited states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rich.progress import Progress

from bac.distances import sample_chunks, screen
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac_workbench.profiling.observations import recorded_observations, visited_observations
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from bac_workbench.timing.latency import interleaved, speed_ratio
from bac_workbench.tuning.candidates import FULL, Candidate, Candidates
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.observation import Observation


def samplers_of(candidates: Candidates, runtime: str) -> dict[str, Runtime]:
    """Of the full policy and every candidate, all of them of the executed tokens."""

    def sampler(candidate: Candidate) -> Runtime:
        experiment = candidate.experiment
        tokens = experiment.tokens.kept
        return make_sampler(experiment.sampler, candidate.schedule, runtime, candidate.precision, tokens=tokens)

    return {name: sampler(candidates[name]) for name in [FULL, *candidates.named]}


def measure_times(
    experiment: Experiment, samplers: dict[str, Runtime], rounds: int, warmup: int, progress: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Milliseconds of a chunk at batch 1, all in one interleaved run.

    Returns:
        By candidate: what `timing.latency.Latency.to_dict` says and `speedup` against the full policy in the same
        runtime, the median over rounds of the ratio within a round.
    """
    latencies, _ = interleaved(experiment.policy, samplers, 1, rounds, warmup, progress)
    return {
        name: {**latency.to_dict(), "speedup": round(speed_ratio(latencies[FULL], latency), 3)}
        for name, latency in latencies.items()
    }


def tuning_states(experiment: Experiment, bar: Progress) -> tuple[Observation, str]:
    """Observations to screen on, and where they come from.

    Those of the recording that `observations` names, but for what schedules are made from; else what the full policy
    visits on tuning seeds; or, for a task without a simulator, windows of its data set.

    Raises:
        ConfigError: a recording holds fewer than two.
        DatasetError: it is damaged.
    """
    settings, recordings = experiment.settings, experiment.recordings
    if recordings is not None:
        episodes = recordings.judged if settings.profiles_observations else range(recordings.total)
        observations, available = recordings.sample(episodes, settings.screen.n_states)
        if available < 2:
            raise ConfigError(f"{recordings.describe(episodes)} hold one observation, and a screen needs two at least")
        return observations, recordings.describe(episodes)
    if experiment.simulated is None:
        observations, n = recorded_observations(settings.task, experiment.policy, settings.screen.n_states)
        return observations, f"the task's data set, {n} windows"
    start, n_episodes = settings.selection.start_seed, settings.screen.n_episodes
    observations, _ = visited_observations(experiment, n_episodes, start, settings.screen.n_states, bar)
    return observations, f"{n_episodes} rollouts of the full policy from seed {start}"


@torch.no_grad()
def measure_distances(
    experiment: Experiment,
    samplers: dict[str, Runtime],
    observations: Observation,
    n_samples: int,
    progress: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """Distances of every candidate's executed chunks from the full policy's, on the same states and noise.

    Returns:
        By candidate: see `bac.distances.Screen.to_dict`.
    """
    policy = experiment.policy
    inputs = policy.sampler_inputs(as_tensors(observations))
    seeds = list(range(n_samples))
    chunks = {}
    for name, sampler in samplers.items():
        chunks[name] = sample_chunks(sampler, policy, inputs, seeds)
        progress()
    return {name: screen(chunk, chunks[FULL]).to_dict() for name, chunk in chunks.items() if name != FULL}
