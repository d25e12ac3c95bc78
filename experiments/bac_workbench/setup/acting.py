"""A policy as the rollout loop calls it, with each episode's own noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.observation import Observation
from diffusion_policy.env_runner.rollout import Act
from diffusion_policy.policy.sampler_inputs import SamplerInputs


def as_tensors(obs: Observation) -> dict[str, torch.Tensor]:
    """An observation as `predict_action` takes it: tensors by name, a single array under "obs"."""
    arrays = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def noise_generator(policy_seed: int, episode: Episode) -> torch.Generator:
    """The noise of an episode: the same for every method, whatever the batch."""
    high, low = np.random.SeedSequence([policy_seed, episode.seed]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(high) << 31 | int(low) >> 1)


class Noise:
    """Every episode's own generator, from its first chunk to its last."""

    def __init__(self, policy_seed: int):
        self._seed, self._idle = policy_seed, torch.Generator()
        self._generators: dict[int, torch.Generator] = {}

    def of(self, episodes: Sequence[Episode | None], chunk_index: Sequence[int]) -> list[torch.Generator]:
        """For each row of a batch; an idle row, without an episode, has one that nobody cares for."""
        return [self._one(episode, chunk) for episode, chunk in zip(episodes, chunk_index)]

    def _one(self, episode: Episode | None, chunk: int) -> torch.Generator:
        if episode is None:
            return self._idle
        if chunk == 0:
            self._generators[episode.index] = noise_generator(self._seed, episode)
        return self._generators[episode.index]


def acting(predict_action: Callable[..., dict[str, Any]], policy_seed: int) -> Act:
    """`predict_action` as an `Act`: every episode draws from its own generator, from its first chunk to its last."""
    noise = Noise(policy_seed)

    def act(obs, active, episodes, chunk_index):
        return predict_action(as_tensors(obs), noise.of(episodes, chunk_index))["action"].cpu().numpy()

    return act


def acting_on(policy: Any, policy_seed: int) -> Act:
    """`policy` as an `Act` of real-time chunking: each chunk begins with the actions that are executed meanwhile.

    They are inpainted, exactly and at every denoising step, as a policy without observation tokens is given its
    observations. All the rest is as in `acting`.
    """
    noise = Noise(policy_seed)

    def act(obs, active, episodes, chunk_index, committed):
        inputs = beginning_with(policy, policy.sampler_inputs(as_tensors(obs)), committed)
        sample = policy.sampler(inputs, noise.of(episodes, chunk_index))
        return policy.decode(sample)["action"].cpu().numpy()

    return act


def beginning_with(policy: Any, inputs: SamplerInputs, committed: Sequence[np.ndarray | None]) -> SamplerInputs:
    """`inputs` whose chunks are known to begin with `committed` actions, [n, Da] of each row in the task's units."""
    known = inputs.known.clone()
    mask = torch.zeros_like(known, dtype=torch.bool) if inputs.mask is None else inputs.mask.clone()
    for row, actions in enumerate(committed):
        if actions is None or not len(actions):
            continue
        place = row, slice(policy.chunk.start, policy.chunk.start + len(actions)), slice(policy.action_dim)
        known[place] = policy.normalizer["action"].normalize(torch.from_numpy(actions).to(known))
        mask[place] = True
    return SamplerInputs(known, mask, inputs.observation)
