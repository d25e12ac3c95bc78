"""What Franka Kitchen is, apart from its simulation: observation, control, tasks, rewards. Imports no simulator.

Relay Policy Learning (Gupta et al. 2019) in the version of Diffusion Policy (Chi et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

N_ROBOT, N_OBJECT = 9, 21  # joint positions: 7 arm joints and 2 fingers; burners, switches, doors, kettle
N_QPOS = N_ROBOT + N_OBJECT
OBS_DIM, ACTION_DIM = 2 * N_QPOS, N_ROBOT
CONTROL_DT = 0.08  # s, one control step
MAX_SPEED = 2.0  # rad/s (fingers: m/s) at action 1 with velocity actions
SPEED_LIMIT = 10.0  # rad/s, on what an action asks for
CONTROL_LOW = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
CONTROL_HIGH = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])

# Amplitude of the uniform observation noise, per joint position, at a noise ratio of 1. Data of the benchmark.
NOISE_AMPLITUDE = np.array(
    [0.1] * N_ROBOT + [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005]
)
NOISE_RATIO = 0.1

# Joint positions at the start of an episode. Data of the benchmark.
INITIAL_QPOS = np.array(
    [
        1.48388023e-01,
        -1.76848573e00,
        1.84390296e00,
        -2.47685760e00,
        2.60252026e-01,
        7.12533105e-01,
        1.59515394e00,
        4.79267505e-02,
        3.71350919e-02,
        -2.66279850e-04,
        -5.18043486e-05,
        3.12877220e-05,
        -4.51199853e-05,
        -3.90842156e-06,
        -4.22629655e-05,
        6.28065475e-05,
        4.04984708e-05,
        4.62730939e-04,
        -2.26906415e-04,
        -4.65501369e-04,
        -6.44129196e-03,
        -1.77048263e-03,
        1.08009684e-03,
        -2.69397440e-01,
        3.50383255e-01,
        1.61944683e00,
        1.00618764e00,
        4.06395120e-03,
        -6.62095997e-03,
        -2.68278933e-04,
    ]
)

# Task -> (indices of qpos, their goal).
GOALS: Mapping[str, tuple[np.ndarray, np.ndarray]] = MappingProxyType(
    {
        "bottom burner": (np.array([11, 12]), np.array([-0.88, -0.01])),
        "top burner": (np.array([15, 16]), np.array([-0.92, -0.01])),
        "light switch": (np.array([17, 18]), np.array([-0.69, -0.05])),
        "slide cabinet": (np.array([19]), np.array([0.37])),
        "hinge cabinet": (np.array([20, 21]), np.array([0.0, 1.45])),
        "microwave": (np.array([22]), np.array([-0.75])),
        "kettle": (np.arange(23, 30), np.array([-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06])),
    }
)
TASKS = tuple(GOALS)
TOLERANCE = 0.3  # a task is complete when its joints are closer than this (L2) to its goal
DEMONSTRATED_TASKS = 4  # a demonstration performs four of the seven


def is_complete(task: str, qpos: np.ndarray) -> bool:
    """Whether `task` is complete at joint positions `qpos` [30]."""
    indices, goal = GOALS[task]
    return bool(np.linalg.norm(qpos[indices] - goal) < TOLERANCE)


class CompletedTasks:
    """Tasks completed in one episode, each counted once, in the order of their completion."""

    def __init__(self):
        self.order: list[str] = []

    def step(self, qpos: np.ndarray) -> float:
        """Reward of a step that ends at observed joint positions `qpos` [30]: 1 for every task completed for the first
        time."""
        new = [task for task in TASKS if task not in self.order and is_complete(task, qpos)]
        self.order += new
        return float(len(new))

    def metrics(self) -> dict[str, float]:
        """The benchmark's p1..p7 (at least so many tasks completed), and which ones; each 0 or 1."""
        counts = {f"p{n}": float(len(self.order) >= n) for n in range(1, len(TASKS) + 1)}
        return counts | {task: float(task in self.order) for task in TASKS}


def fraction_completed(rewards: np.ndarray) -> float:
    """Score of an episode with rewards [T]: the share of the seven tasks that were completed."""
    return float(np.sum(rewards) / len(TASKS))
