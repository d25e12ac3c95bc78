"""Demonstrations of Franka Kitchen: the scripted expert does four tasks in its environment."""

from __future__ import annotations

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.demos.noise import wandering
from diffusion_policy.env.kitchen.definition import ACTION_DIM, DEMONSTRATED_TASKS, INITIAL_QPOS, TASKS
from diffusion_policy.env.kitchen.expert import N_ARM, KitchenExpert
from diffusion_policy.env.kitchen.inverse_kinematics import UnreachableError
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv
from diffusion_policy.env.kitchen.subtasks import SUBTASKS, Variation

JITTERED_STARTS = 0.4  # share of the episodes that start with other arm joint positions than the benchmark's,
START_JITTER = 0.04  # rad, at most, from them
SPEEDS = (0.92, 1.12)
APPROACH_JITTER = 0.015  # m
DETOURS = 0.5  # share of the ways between tasks that are bent,
DETOUR_SIZE = 0.06  # rad, standard deviation of each joint in the middle of the way
REST = 4  # steps that the arm holds still at the end


class KitchenDemonstrator:
    """Records, all before each step but the action:

    - obs, float32 [T, 30]: joint positions without noise;
    - action, float32 [T, 9]: absolute joint position targets, within the limits of the control, what the expert
      intended;
    - tasks, uint8 [T, 7]: which of `TASKS` have been completed.

    A seed draws `n_tasks` of the expert's tasks and their order, any of them (360 orders of four of six), the speed,
    how each task is approached and touched, and bends in the ways between them. The arm mostly starts as in the
    benchmark. It draws back from the last task and rests for a moment. Only demonstrations that complete the tasks
    drawn, in their order and no others, within `max_steps` are kept.

    Args:
        noise: rad, standard deviation, where it is largest, of what is added to the arm's targets as they are executed
            and not as they are recorded: the demonstrations then show how to get back on the way (DART, Laskey et al.
            2017). A seed draws its size from none to `noise`. 0: none.
    """

    def __init__(self, n_tasks: int = DEMONSTRATED_TASKS, max_steps: int = 280, noise: float = 0.015):
        if not 1 <= n_tasks <= len(SUBTASKS):
            raise InputError(f"n_tasks must be in [1, {len(SUBTASKS)}], as many as the expert knows, not {n_tasks}")
        if noise < 0:
            raise InputError(f"noise is a standard deviation in rad and cannot be {noise}")
        self.n_tasks, self.max_steps, self.noise = n_tasks, max_steps, noise
        self.env = KitchenEnv(abs_action=True, noise_ratio=0.0)

    def record(self, seed: int) -> dict[str, np.ndarray] | None:
        rng = np.random.default_rng(seed)
        chain = [str(task) for task in rng.permutation(list(SUBTASKS))[: self.n_tasks]]
        self.env.reset(seed=seed, options={"qpos": _start(rng)})
        expert = KitchenExpert(self.env, speed=float(rng.uniform(*SPEEDS)))
        disturbances = _disturbances(np.random.default_rng([seed, 1]), self.noise, self.max_steps)
        steps: dict[str, list[np.ndarray]] = {"obs": [], "action": [], "tasks": []}
        for position, task in enumerate(chain):
            try:
                actions = expert.plan(task, _variation(rng))
            except UnreachableError:
                return None
            if task == chain[-1]:
                actions = np.concatenate([actions, np.repeat(actions[-1:], REST, axis=0)])
            for action in actions.astype(np.float32):
                if len(steps["obs"]) == self.max_steps:
                    break
                completed = self.env.completed.order
                steps["obs"].append(self.env.data.qpos.astype(np.float32))
                steps["action"].append(action)
                steps["tasks"].append(np.array([name in completed for name in TASKS], dtype=np.uint8))
                self.env.step(action + disturbances[len(steps["obs"]) - 1])
            if self.env.completed.order != chain[: position + 1]:
                return None
        return {name: np.stack(values) for name, values in steps.items()}

    def close(self) -> None:
        self.env.close()


def _start(rng: np.random.Generator) -> np.ndarray:
    """Joint positions [30] at the start of an episode."""
    qpos, jitter = INITIAL_QPOS.copy(), rng.uniform(-START_JITTER, START_JITTER, N_ARM)
    if rng.uniform() < JITTERED_STARTS:
        qpos[:N_ARM] += jitter
    return qpos


def _disturbances(rng: np.random.Generator, noise: float, n_steps: int) -> np.ndarray:
    """Joint positions [n_steps, 9] that wander around zero; the fingers' stay there."""
    fresh = np.zeros((n_steps, ACTION_DIM))
    fresh[:, :N_ARM] = rng.uniform(0.0, noise) * rng.normal(size=(n_steps, N_ARM))
    return wandering(fresh)


def _variation(rng: np.random.Generator) -> Variation:
    detour = rng.normal(0.0, DETOUR_SIZE, N_ARM) * (rng.uniform() < DETOURS)
    return Variation(
        approach=rng.uniform(-APPROACH_JITTER, APPROACH_JITTER, 3),
        contact=float(rng.uniform(-1.0, 1.0)),
        extent=float(rng.uniform(-1.0, 1.0)),
        detour=detour,
    )
