"""What Block Pushing is, apart from its simulation: observation, action, rewards, score. Imports no simulator."""

from __future__ import annotations

import numpy as np

OBS_DIM, ACTION_DIM = 16, 2
BLOCKS = slice(0, 6)  # in the observation: x, y, yaw of each
EFFECTOR = slice(6, 8)
EFFECTOR_TARGET = slice(8, 10)
TARGETS = slice(10, 16)  # x, y, yaw of each
TARGET_YAW_SPREAD = np.pi / 30  # rad, a target's yaw is drawn within this of 0
WORKSPACE_LOW, WORKSPACE_HIGH = np.array([0.15, -0.5]), np.array([0.7, 0.5])  # m, of the effector's target
TOLERANCE = 0.05  # m, a block's centre counts as in a target within this distance of the target's centre
ENTER_REWARD = 0.49
SOLVED_REWARD = 0.51


class RewardEvents:
    """Rewards of one episode, step by step.

    A step in which a (block, target) pair comes within `TOLERANCE` for the first time earns 0.49; the step in which
    both blocks are in different targets earns 0.51 instead, whatever else happened in it. A step with two first entries
    that does not solve the task earns 0.98. A reward of 0.51 or more ends the episode.
    """

    def __init__(self):
        self._entered = np.zeros((2, 2), dtype=bool)  # [block, target]
        self._rewards = {0.0}

    def step(self, blocks: np.ndarray, targets: np.ndarray) -> float:
        """Reward of a step after which the blocks are at `blocks` [2, 2] (xy, m), the targets at `targets` [2, 2]."""
        distances = np.linalg.norm(blocks[:, None] - targets[None], axis=-1)  # [block, target]
        inside = distances < TOLERANCE
        new = inside & ~self._entered
        self._entered |= inside
        reward = ENTER_REWARD * int(new.sum())
        if inside.any(axis=1).all() and len(set(distances.argmin(axis=1))) == 2:
            reward = SOLVED_REWARD
        self._rewards.add(reward)
        return reward

    @property
    def total(self) -> float:
        """Score of the episode so far."""
        return total_reward(np.array(sorted(self._rewards)))

    def metrics(self) -> dict[str, float]:
        """The benchmark's p1 (a block has reached a target) and p2 (both have), each 0 or 1."""
        return {"p1": float(self.total > 0.4), "p2": float(self.total > 0.9)}


def total_reward(rewards: np.ndarray) -> float:
    """Score of an episode with rewards [T]: the sum of their different values (Diffusion Policy's evaluation)."""
    return float(np.unique(rewards).sum())
