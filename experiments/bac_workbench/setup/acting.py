"""A policy as the rollout loop calls it, with each episode's own noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.observation import Observation
from diffusion_policy.env_runner.rollout import Act


def as_tensors(obs: Observation) -> dict[str, torch.Tensor]:
    """An observation as `predict_action` takes it: tensors by name, a single array under "obs"."""
    arrays = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def noise_generator(policy_seed: int, episode: Episode) -> torch.Generator:
    """The noise of an episode: the same for every method, whatever the batch."""
    high, low = np.random.SeedSequence([policy_seed, episode.seed]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(high) << 31 | int(low) >> 1)


def acting(predict_action: Callable[..., dict[str, Any]], policy_seed: int) -> Act:
    """`predict_action` as an `Act`: every episode draws from its own generator, from its first chunk to its last."""
    generators: dict[int, torch.Generator] = {}
    idle = torch.Generator()

    def generator(episode: Episode | None, chunk: int) -> torch.Generator:
        if episode is None:
            return idle
        if chunk == 0:
            generators[episode.index] = noise_generator(policy_seed, episode)
        return generators[episode.index]

    def act(obs, active, episodes, chunk_index):
        noise = [generator(episode, chunk) for episode, chunk in zip(episodes, chunk_index)]
        return predict_action(as_tensors(obs), noise)["action"].cpu().numpy()

    return act
