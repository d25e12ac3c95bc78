"""Franka Kitchen: an arm operates a stove, a light, cabinets, a microwave and a kettle, on plain MuJoCo.

Relay Policy Learning (Gupta et al. 2019) in the version of Diffusion Policy (Chi et al. 2023), without a goal.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from diffusion_policy.env.kitchen.definition import (
    ACTION_DIM,
    CONTROL_DT,
    CONTROL_HIGH,
    CONTROL_LOW,
    DEMONSTRATED_TASKS,
    INITIAL_QPOS,
    MAX_SPEED,
    N_QPOS,
    N_ROBOT,
    NOISE_AMPLITUDE,
    NOISE_RATIO,
    OBS_DIM,
    SPEED_LIMIT,
    TASKS,
    CompletedTasks,
)
from diffusion_policy.env.kitchen.model import load_model
from diffusion_policy.env.offscreen import OffscreenRenderer, import_mujoco

# The benchmark's camera.
CAMERA = {"lookat": (-0.2, 0.5, 2.0), "distance": 2.2, "azimuth": 70.0, "elevation": -35.0}


class KitchenEnv(gymnasium.Env):
    """Franka Kitchen from its state.

    - Observation, float32 [60]: the noisy joint positions, 9 of the robot (7 rad, 2 fingers m) and 21 of objects, then
      30 zeros (the place of a goal, which this task has none of).
    - Action, float [9]: with `abs_action` joint positions to reach in the next 0.08 s; else joint velocities in units
      of 2 rad/s, clipped to +-1. Either is counted from the last observation, with its noise, as in the benchmark.
    - Reward: 1 for every task completed for the first time. The episode ends when all seven are; the environment itself
      never truncates.
    - info: "is_success" (at least four tasks, as many as a demonstration has), "metrics" (p1..p7 and the tasks),
      "completed_tasks" in their order.

    An episode always starts from the same state; its seed drives the noise.

    Args:
        abs_action: actions are joint positions.
        noise_ratio: scale of the observation noise; 0: none.
        render_size: (height, width) of the frames that `render()` returns, px, even.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1 / CONTROL_DT}

    def __init__(
        self, abs_action: bool = True, noise_ratio: float = NOISE_RATIO, render_size: tuple[int, int] = (240, 360)
    ):
        self._mujoco = import_mujoco("kitchen")
        self.model = load_model()
        self.data = self._mujoco.MjData(self.model)
        self.abs_action, self.noise_ratio, self.render_size = abs_action, noise_ratio, tuple(render_size)
        self.render_mode = "rgb_array"
        self._frame_skip = round(CONTROL_DT / self.model.opt.timestep)
        self._renderer: OffscreenRenderer | None = None
        self._observed: np.ndarray | None = None  # [30], joint positions with noise; None: no running episode
        limit = 8.0 if abs_action else 1.0
        self.observation_space = gymnasium.spaces.Box(-8.0, 8.0, shape=(OBS_DIM,), dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-limit, limit, shape=(ACTION_DIM,), dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode with the noise of `seed`.

        Args:
            options: "qpos" [30] and "qvel" [29] start elsewhere than the benchmark does, at rest without "qvel".
        """
        super().reset(seed=seed)
        qpos, qvel = _initial_state(options or {}, self.model.nv)
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self._mujoco.mj_forward(self.model, self.data)
        self.completed = CompletedTasks()
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Control the robot by `action` [9] for 0.08 s."""
        observed = self._running()
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"a Kitchen action is nine finite numbers (7 arm joints, 2 fingers), not {action!r}")
        position = observed[:N_ROBOT]
        if self.abs_action:
            velocity = (action - position) / CONTROL_DT
        else:
            velocity = np.clip(action, -1.0, 1.0) * MAX_SPEED
        control = position + np.clip(velocity, -SPEED_LIMIT, SPEED_LIMIT) * CONTROL_DT
        self.data.ctrl[:] = np.clip(control, CONTROL_LOW, CONTROL_HIGH)
        self._mujoco.mj_step(self.model, self.data, self._frame_skip)
        obs = self._observe()
        reward = self.completed.step(self._observed)
        return obs, reward, len(self.completed.order) == len(TASKS), False, self._info()

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action [9] that keeps the joints at `last`, None: where they are observed; of velocities, none."""
        if not self.abs_action:
            return np.zeros(ACTION_DIM)
        return self._running()[:N_ROBOT].copy() if last is None else last

    def render(self) -> np.ndarray:
        """The scene from the benchmark's camera, uint8 RGB [H, W, 3]."""
        self._running()
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self._mujoco, self.model, *self.render_size, CAMERA)
        return self._renderer.frame(self.data)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._observed = None

    def _running(self) -> np.ndarray:
        if self._observed is None:
            raise RuntimeError("no episode is running in this environment: call reset(seed=...) first")
        return self._observed

    def _observe(self) -> np.ndarray:
        noise = self.np_random.uniform(-1.0, 1.0, size=N_QPOS)
        self._observed = self.data.qpos + self.noise_ratio * NOISE_AMPLITUDE * noise
        return np.concatenate([self._observed, np.zeros(N_QPOS)]).astype(np.float32)

    def _info(self) -> dict:
        order = self.completed.order
        return {
            "is_success": len(order) >= DEMONSTRATED_TASKS,
            "metrics": self.completed.metrics(),
            "completed_tasks": tuple(order),
        }


def _initial_state(options: dict, n_velocities: int) -> tuple[np.ndarray, np.ndarray]:
    unknown = sorted(set(options) - {"qpos", "qvel"})
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; Kitchen knows qpos and qvel")
    state = []
    for name, default in (("qpos", INITIAL_QPOS), ("qvel", np.zeros(n_velocities))):
        values = np.asarray(options.get(name, default), dtype=np.float64)
        if values.shape != default.shape or not np.isfinite(values).all():
            raise ValueError(f"reset option {name!r} must be {len(default)} finite numbers, not {values!r}")
        state.append(values)
    return state[0], state[1]
