"""Similarity maps of single chains: one observation, one noise seed. A profile is their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import Progress

from bac.denoiser import model_blocks
from bac.loop import DenoisingLoop, SamplerInputs
from bac.profiling import profile_features
from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.profiling.observations import visited_observations
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.env_runner.observation import apply

METRIC = "cosine"  # what ACS optimises unless told otherwise; BUA always scores by l1


@dataclass(frozen=True)
class Chains:
    """Of N observations and S noise seeds, which are crossed: every observation is denoised from the same S noises.

    Attributes:
        blocks: names in execution order.
        similarity, l1: float32 [N, S, blocks, K, K].
        episodes: int [N], the environment seed that each observation comes from.
        noise_seeds: S of them.
    """

    blocks: tuple[str, ...]
    similarity: np.ndarray
    l1: np.ndarray
    episodes: np.ndarray
    noise_seeds: tuple[int, ...]

    def mean(self, observations: Sequence[int], seeds: Sequence[int]) -> tuple[dict[str, np.ndarray], ...]:
        """The profile of some of them by their places: block -> [K, K] of the similarity, and of l1."""
        chosen = np.ix_(list(observations), list(seeds))
        return tuple(
            dict(zip(self.blocks, values[chosen].mean(axis=(0, 1), dtype=np.float64)))
            for values in (self.similarity, self.l1)
        )


def visited(
    experiment: Experiment, first_seed: int, n_episodes: int, n_states: int, bar: Progress
) -> tuple[SamplerInputs, np.ndarray]:
    """States of the full policy's rollouts, `n_states` spread over each, and the environment seed of each state."""
    found, seeds = [], []
    for seed in range(first_seed, first_seed + n_episodes):
        observation, _ = visited_observations(experiment, 1, seed, n_states, bar)
        found.append(observation)
        seeds += [seed] * len(next(iter(as_tensors(observation).values())))
    together = apply(lambda *parts: np.concatenate(parts), *found)
    return experiment.policy.sampler_inputs(as_tensors(together)), np.array(seeds)


def measure_chains(
    loop: DenoisingLoop, inputs: SamplerInputs, episodes: np.ndarray, noise_seeds: Sequence[int], bar: Progress
) -> Chains:
    """Runs the full policy on every observation and noise seed, and compares features between steps, chain by chain."""
    blocks, job = model_blocks(loop.model), bar.add_task("profiling", total=len(inputs) * len(noise_seeds))
    steps = loop.num_inference_steps
    found = {
        metric: np.empty((len(inputs), len(noise_seeds), len(blocks), steps, steps), np.float32)
        for metric in (METRIC, "l1")
    }
    for number in range(len(inputs)):
        for place, seed in enumerate(noise_seeds):
            matrices = profile_features(loop, inputs[number : number + 1], [seed], 1)
            for metric, values in found.items():
                values[number, place] = [matrices[metric][block] for block in blocks]
            bar.advance(job)
    return Chains(blocks, found[METRIC], found["l1"], episodes, tuple(noise_seeds))


@torch.no_grad()
def action_errors(
    experiment: Experiment,
    schedules: Sequence[Schedule],
    inputs: SamplerInputs,
    noise_seeds: Sequence[int],
    bar: Progress,
    batch: int,
) -> list[float]:
    """Mean absolute difference of the executed actions to the full policy's, same noise, in normalised units."""
    policy, loop = experiment.policy, experiment.sampler
    job = bar.add_task("errors of actions", total=1 + len(schedules))

    def actions(schedule: Schedule | None) -> torch.Tensor:
        sampler, parts = make_sampler(loop, schedule, "planned"), []
        for seed in noise_seeds:
            for start in range(0, len(inputs), batch):
                part = inputs[start : start + batch]
                # Other noise than that of `measure_chains`, which starts from 0 for every observation.
                noise = [torch.Generator().manual_seed(7_000_003 * (seed + 1) + start + i) for i in range(len(part))]
                parts.append(sampler(part, noise)[:, policy.chunk, : policy.action_dim])
        bar.advance(job)
        return torch.cat(parts)

    exact = actions(None)
    return [float((actions(schedule) - exact).abs().mean()) for schedule in schedules]
