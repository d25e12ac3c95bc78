"""Episodes of Block Pushing for its tests."""

import numpy as np

from diffusion_policy.env.block_pushing.oracle import MultimodalPushOracle


def run_oracle(env, seed, steps=350):
    """Observations [T + 1, 16], rewards [T], the last info."""
    obs, _ = env.reset(seed=seed)
    expert = MultimodalPushOracle(env.rng)
    observations, rewards, terminated = [obs], [], False
    while not terminated and len(rewards) < steps:
        obs, reward, terminated, truncated, info = env.step(expert.action(obs))
        assert not truncated
        observations.append(obs)
        rewards.append(reward)
    return np.array(observations), np.array(rewards), info
