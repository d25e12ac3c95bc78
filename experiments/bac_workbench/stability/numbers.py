"""How much similarity maps and the schedules made from them depend on the observation, the episode and the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bac.acs import acs_value
from bac.bua import bac, error_scores, select_blocks
from bac.schedule import Schedule
from bac.uniform import uniform
from bac_workbench.stability.measure import METRIC, Chains

#: pairs of chains by what they share; a pair's correlation is that of their maps' entries above the diagonal
PAIRS = ("noise", "state", "episode", "all")
PAIR_TITLES = {
    "noise": "same state, other noise",
    "state": "other state of the episode, same noise",
    "episode": "other episode, same noise",
    "all": "other episode, other noise",
}


def correlations(chains: Chains, most: int = 500, seed: int = 0) -> dict[str, np.ndarray]:
    """Correlation of two chains' maps, by what differs between the two: [pairs, blocks] for each of `PAIRS`.

    Args:
        most: pairs of each kind, drawn where there are more.
    """
    steps = chains.similarity.shape[-1]
    above = np.triu_indices(steps, 1)
    flat = chains.similarity[..., above[0], above[1]]  # [N, S, blocks, entries]
    flat = flat - flat.mean(axis=-1, keepdims=True)
    size = np.sqrt((flat**2).sum(axis=-1))
    random, found = np.random.default_rng(seed), {}
    for kind in PAIRS:
        pairs = _pairs(chains, kind)
        if len(pairs) > most:
            pairs = [pairs[i] for i in sorted(random.choice(len(pairs), most, replace=False))]
        values = []
        for (n, s), (m, t) in pairs:
            product = np.einsum("be,be->b", flat[n, s], flat[m, t])
            scale = size[n, s] * size[m, t]
            values.append(np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0))
        found[kind] = np.array(values).reshape(len(values), len(chains.blocks))
    return found


def _pairs(chains: Chains, kind: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    n, s = chains.similarity.shape[:2]
    places = [(number, seed) for number in range(n) for seed in range(s)]
    kept = []
    for index, one in enumerate(places):
        for other in places[index + 1 :]:
            same_noise = one[1] == other[1]
            same_episode = chains.episodes[one[0]] == chains.episodes[other[0]]
            found = {
                "noise": one[0] == other[0],
                "state": one[0] != other[0] and same_noise and same_episode,
                "episode": same_noise and not same_episode,
                "all": not same_noise and not same_episode,
            }
            if found[kind]:
                kept.append((one, other))
    return kept


def schedule_of(chains: Chains, observations: Sequence[int], seeds: Sequence[int], budget: int, top_k: int) -> Schedule:
    """BAC's schedule from the mean of some chains."""
    similarity, l1 = chains.mean(observations, seeds)
    return bac(similarity, l1, budget, top_k, METRIC)


@dataclass(frozen=True)
class Likeness:
    """A schedule beside the one of all chains.

    Attributes:
        displacement: mean over blocks and updates of |step - step there|, of ACS before its repair, in denoising steps.
        regret: what ACS's objective loses on the maps of all chains, as a share of what its optimum has above Uniform.
        repaired: how many of the blocks that BUA chooses are the same.
    """

    displacement: float
    regret: float
    repaired: int

    def to_dict(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in vars(self).items()}


def likeness(chains: Chains, observations: Sequence[int], seeds: Sequence[int], budget: int, top_k: int) -> Likeness:
    """Of ACS and BUA from some chains, and from all of them."""
    everything = range(len(chains.episodes)), range(len(chains.noise_seeds))
    all_similarity, all_l1 = chains.mean(*everything)
    some_similarity, some_l1 = chains.mean(observations, seeds)
    there = bac(all_similarity, all_l1, budget, 0, METRIC).update_steps
    here = bac(some_similarity, some_l1, budget, 0, METRIC).update_steps
    even = uniform(chains.blocks, chains.similarity.shape[-1], budget).update_steps
    displaced = [np.abs(np.subtract(here[block], there[block])).mean() for block in chains.blocks]
    best, got, least = (
        sum(acs_value(all_similarity[block], steps[block]) for block in chains.blocks) for steps in (there, here, even)
    )
    chosen = set(select_blocks(error_scores(some_l1), top_k)) & set(select_blocks(error_scores(all_l1), top_k))
    regret = (best - got) / (best - least) if best > least else 0.0
    return Likeness(float(np.mean(displaced)), float(regret), len(chosen))
