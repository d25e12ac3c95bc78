"""What can be known without rolling candidates out: times on this machine, and distances on visited states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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


def tuning_states(experiment: Experiment, file: str | None, bar: Progress) -> tuple[Observation, str]:
    """Observations to screen on, and where they come from.

    Those in `file`, else what the full policy visits on tuning seeds, else, for a task without a simulator, windows of
    its data set.

    Raises:
        ConfigError: the file's observations are of another policy.
    """
    settings = experiment.settings
    if file is not None:
        return read_observations(file, experiment.policy, settings.screen.n_states), file
    if experiment.simulated is None:
        observations, n = recorded_observations(settings.task, experiment.policy, settings.screen.n_states)
        return observations, f"the task's data set, {n} windows"
    start, episodes = settings.selection.start_seed, settings.screen.n_episodes
    observations, _ = visited_observations(experiment, episodes, start, settings.screen.n_states, bar)
    return observations, f"{episodes} rollouts of the full policy from seed {start}"


def read_observations(path: str, policy: Any, n_states: int) -> Observation:
    """At most `n_states` observations of an .npz file: an array [N, To, ...] for each of the policy's inputs.

    Raises:
        ConfigError: the file is damaged, or its observations are not what the policy looks at.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"observations={path} cannot be read ({error}): give an .npz file with an array [N, To, ...] for each of "
            f"{', '.join(policy.obs_shapes)}"
        ) from error
    wanted = {name: (policy.n_obs_steps, *shape) for name, shape in policy.obs_shapes.items()}
    wrong = []
    for name, shape in wanted.items():
        expected = f"[N, {', '.join(map(str, shape))}]"
        if name not in arrays:
            wrong.append(f"{name} {expected} is missing")
        elif arrays[name].shape[1:] != shape:
            wrong.append(f"{name} has shape {list(arrays[name].shape)}, not {expected}")
    wrong += [f"the policy does not look at {name}" for name in arrays if name not in wanted]
    counts = {len(arrays[name]) for name in wanted if name in arrays}
    if not wrong and (len(counts) > 1 or min(counts) < 2):
        wrong = [f"arrays of {', '.join(map(str, sorted(counts)))} states, where all need the same number, 2 at least"]
    if wrong:
        raise ConfigError(f"observations={path} are not of this policy: {'; '.join(wrong)}")
    rows = np.linspace(0, counts.pop() - 1, n_states).round().astype(int) if n_states < min(counts) else slice(None)
    return {name: arrays[name][rows] for name in wanted}


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
