"""Demonstrations of Franka Kitchen: the scripted expert does four tasks in its environment."""
from __future__ import annotations

import numpy as np

from diffusion_policy.env.kitchen.definition import DEMONSTRATED_TASKS, INITIAL_QPOS, TASKS
from diffusion_policy.env.kitchen.expert import N_ARM, KitchenExpert
from diffusion_policy.env.kitchen.inverse_kinematics import UnreachableError
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv
from diffusion_policy.env.kitchen.subtasks import SUBTASKS, Variation

JITTERED_STARTS = 0.4       # share of the episodes that start with other arm joint positions than the benchmark's,
START_JITTER = 0.04         # rad, at most, from them
SPEEDS = (0.92, 1.12)
APPROACH_JITTER = 0.015     # m
DETOURS = 0.5               # share of the ways between tasks that are bent,
DETOUR_SIZE = 0.06          # rad, standard deviation of each joint in the middle of the way
REST = 4                    # steps that the arm holds still at the end


class KitchenDemonstrator:
    """Records, all before each step but the action:

    - obs, float32 [T, 30]: joint positions without noise;
    - action, float32 [T, 9]: absolute joint position targets, within the limits of the control;
    - tasks, uint8 [T, 7]: which of `TASKS` have been completed.

    A seed draws `n_tasks` of the expert's tasks and their order, any of them (360 orders of four of six), the speed, how
    each task is approached and touched, and bends in the ways between them. The arm mostly starts as in the benchmark. It
    draws back from the last task and rests for a moment. Only demonstrations that complete the tasks drawn, in their order
    and no others, within `max_steps` are kept.
    """

    def __init__(self, n_tasks: int = DEMONSTRATED_TASKS, max_steps: int = 280):
        if not 1 <= n_tasks <= len(SUBTASKS):
            raise ValueError(f"n_tasks must be in [1, {len(SUBTASKS)}], as many as the expert knows, not {n_tasks}")
        self.n_tasks, self.max_steps = n_tasks, max_steps
        self.env = KitchenEnv(abs_action=True, noise_ratio=0.0)

    def record(self, seed: int) -> dict[str, np.ndarray] | None:
        rng = np.random.default_rng(seed)
        chain = [str(task) for task in rng.permutation(list(SUBTASKS))[:self.n_tasks]]
        self.env.reset(seed=seed, options={"qpos": _start(rng)})
        expert = KitchenExpert(self.env, speed=float(rng.uniform(*SPEEDS)))
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
                self.env.step(action)
            if self.env.completed.order != chain[:position + 1]:
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


def _variation(rng: np.random.Generator) -> Variation:
    detour = rng.normal(0.0, DETOUR_SIZE, N_ARM) * (rng.uniform() < DETOURS)
    return Variation(approach=rng.uniform(-APPROACH_JITTER, APPROACH_JITTER, 3), contact=float(rng.uniform(-1.0, 1.0)),
                     extent=float(rng.uniform(-1.0, 1.0)), detour=detour)
