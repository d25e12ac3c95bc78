"""Demonstrations of Block Pushing: the oracle in its environment."""
from __future__ import annotations

import numpy as np

from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv
from diffusion_policy.env.block_pushing.oracle import MultimodalPushOracle


class BlockPushingDemonstrator:
    """Records obs float32 [T, 16], each before its step, and action float32 [T, 2] (m, relative).

    As in the benchmark's data, the state that ends the episode and the expert's action in it are recorded too, and the
    few demonstrations that run into `max_steps` (then T = max_steps + 1) are kept.
    """

    def __init__(self, max_steps: int = 350):
        self.max_steps = max_steps
        self.env = BlockPushingEnv()

    def record(self, seed: int) -> dict[str, np.ndarray]:
        obs, _ = self.env.reset(seed=seed)
        oracle = MultimodalPushOracle(self.env.rng)
        observations, actions = [obs], [oracle.action(obs)]
        for _ in range(self.max_steps):
            obs, _, terminated, _, _ = self.env.step(actions[-1])
            observations.append(obs)
            actions.append(oracle.action(obs))
            if terminated:
                break
        return {"obs": np.stack(observations), "action": np.stack(actions)}

    def close(self) -> None:
        self.env.close()
