"""Demonstrations of Block Pushing: the oracle in its environment."""

from __future__ import annotations

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv
from diffusion_policy.env.block_pushing.oracle import MultimodalPushOracle, RecoveringOracle

PERTURBATION_STEPS = 2, 11  # from, and below
PERTURBATION_SPEED = 0.01, 0.035  # m per step


class BlockPushingDemonstrator:
    """Records obs float32 [T, 16], each before its step, action float32 [T, 2] (m, relative), and intention float32 [T,
    5], where the expert was heading (see `Intention.to_array`).

    As in the benchmark's data, the state that ends the episode and the expert's action in it are recorded too, and the
    few demonstrations that run into `max_steps` (then T = max_steps + 1) are kept.

    With perturbations, the effector now and then moves in a random direction for some steps, and what is recorded is
    what the expert would do. So the demonstrations show how to recover from almost anywhere (DART, Laskey et al. 2017).
    Only those that succeed are kept. The benchmark's have none.

    Args:
        action_noise: m, standard deviation of what is added to every action that is executed, in x and y, and not to
            what is recorded. Like perturbations it takes the expert that recovers.
        perturbation_rate: perturbations that begin in a step of the most disturbed demonstrations; each seed draws its
            own rate, from 0 to this.
    """

    def __init__(self, max_steps: int = 350, perturbation_rate: float = 0.0, action_noise: float = 0.0):
        if not 0 <= perturbation_rate <= 1:
            raise InputError(f"perturbation_rate is a probability and cannot be {perturbation_rate}")
        if action_noise < 0:
            raise InputError(f"action_noise = {action_noise} m is negative")
        self.max_steps, self.perturbation_rate, self.action_noise = max_steps, perturbation_rate, action_noise
        self.disturbed = perturbation_rate > 0 or action_noise > 0
        self.env = BlockPushingEnv()

    def record(self, seed: int) -> dict[str, np.ndarray] | None:
        obs, _ = self.env.reset(seed=seed)
        oracle = (RecoveringOracle if self.disturbed else MultimodalPushOracle)(self.env.rng)
        observations, actions = [obs], [oracle.action(obs)]
        intentions = [oracle.intention.to_array()]
        terminated = False
        rng = np.random.default_rng(seed)
        for perturbation in _perturbations(rng, self.perturbation_rate, self.max_steps):
            is_perturbed = perturbation.any()
            noise = self.action_noise * rng.standard_normal(2) if self.action_noise else 0.0
            obs, _, terminated, _, _ = self.env.step((perturbation if is_perturbed else actions[-1]) + noise)
            if is_perturbed:
                oracle.recover(obs)
            observations.append(obs)
            actions.append(oracle.action(obs))
            intentions.append(oracle.intention.to_array())
            if terminated:
                break
        if self.disturbed and not terminated:
            return None
        return {"obs": np.stack(observations), "action": np.stack(actions), "intention": np.stack(intentions)}

    def close(self) -> None:
        self.env.close()


def _perturbations(rng: np.random.Generator, largest_rate: float, n_steps: int) -> np.ndarray:
    """The action to execute instead of the expert's, float32 [n_steps, 2]; zero where it is the expert's."""
    rate, actions = rng.uniform(0.0, largest_rate), np.zeros((n_steps, 2), dtype=np.float32)
    for step in np.flatnonzero(rng.uniform(size=n_steps) < rate):
        angle, speed = rng.uniform(-np.pi, np.pi), rng.uniform(*PERTURBATION_SPEED)
        actions[step : step + rng.integers(*PERTURBATION_STEPS)] = speed * np.cos(angle), speed * np.sin(angle)
    return actions
