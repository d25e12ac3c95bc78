"""Block Pushing (multimodal): an arm pushes two blocks into two targets, either block into either target.

The task of Behavior Transformers (Shafiullah et al., 2022) on the table of Implicit Behavioral Cloning (Florence et
al., 2021), in the version of Diffusion Policy (Chi et al., 2023). A seed means the same initial state as there.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np

from diffusion_policy.env.block_pushing.definition import (
    ACTION_DIM,
    OBS_DIM,
    SOLVED_REWARD,
    TARGET_YAW_SPREAD,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    RewardEvents,
)
from diffusion_policy.env.block_pushing.scene import SETTLE_STEPS, SIM_HZ, Scene

CONTROL_HZ = 10
EFFECTOR_START = np.array([0.3, -0.4])
BLOCK_CENTRE, BLOCK_SPREAD = np.array([0.4, -0.2]), np.array([0.1, 0.15])
TARGET_CENTRE, TARGET_SPREAD, TARGET_OFFSET = np.array([0.4, 0.2]), np.array([0.005, 0.0075]), 0.12
MIN_BLOCK_DISTANCE = 0.1  # m, along x only
ATTEMPTS = 1000


class BlockPushingEnv(gymnasium.Env):
    """Block Pushing from its state.

    - Observation, float32 [16]: block x, y, yaw, block 2 x, y, yaw, effector x, y, effector target x, y, target x, y,
      yaw, target 2 x, y, yaw; in m and rad, yaw in [0, pi).
    - Action, float [2]: m, what to add to the effector's target for the next 0.1 s; with `abs_action` the target
      itself. The target is clipped to the workspace (0.15, -0.5)..(0.7, 0.5).
    - Reward and end of the episode: see `RewardEvents`. The environment itself never truncates.
    - info: "is_success" (p2), "metrics": {"p1", "p2"}, "effector_target" [2].

    Args:
        abs_action: actions are effector targets.
        render_size: (height, width) of the frames that `render()` returns, px, even.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}

    def __init__(self, abs_action: bool = False, render_size: tuple[int, int] = (240, 320)):
        self.abs_action = abs_action
        self.render_size = tuple(render_size)
        self.render_mode = "rgb_array"
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, shape=(OBS_DIM,), dtype=np.float32)
        low, high = (
            (WORKSPACE_LOW, WORKSPACE_HIGH) if abs_action else (np.full(ACTION_DIM, -0.1), np.full(ACTION_DIM, 0.1))
        )
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self.scene: Scene | None = None  # of the running episode
        self.rng: np.random.RandomState | None = None  # of the running episode; the oracle goes on with it

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start the episode of `seed`: block and target poses are drawn, then everything settles."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}; Block Pushing knows none")
        # The legacy generator and the order of its draws are part of what a seed means.
        self.rng = np.random.RandomState(int(self.np_random.integers(2**31)) if seed is None else seed)
        blocks = draw_blocks(self.rng)
        self.close()
        self.scene = Scene(blocks, draw_targets(self.rng))
        self.effector_target = EFFECTOR_START.copy()
        self.scene.aim_effector(self.effector_target)
        self.scene.advance(SETTLE_STEPS)
        self._events = RewardEvents()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move the effector's target by (or, with `abs_action`, to) `action` [2] (m) and simulate 0.1 s."""
        scene = self._running()
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"a Block Pushing action is two finite numbers (x, y in m), not {action!r}")
        target = action if self.abs_action else self.effector_target + action
        self.effector_target = np.clip(target, WORKSPACE_LOW, WORKSPACE_HIGH)
        scene.aim_effector(self.effector_target)
        scene.advance(SIM_HZ // CONTROL_HZ)
        blocks, targets = self._poses()
        reward = self._events.step(blocks[:, :2], targets[:, :2])
        return self._observation(), reward, reward >= SOLVED_REWARD, False, self._info()

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action [2] that leaves the effector's target where it is after the action `last`."""
        if not self.abs_action:
            return np.zeros(ACTION_DIM)
        return self.effector_target.copy() if last is None else last

    def render(self) -> np.ndarray:
        """The scene, uint8 RGB [H, W, 3]."""
        return self._running().render(*self.render_size)

    def close(self) -> None:
        if self.scene is not None:
            self.scene.close()
            self.scene = None

    def _running(self) -> Scene:
        if self.scene is None:
            raise RuntimeError("no episode is running in this environment: call reset(seed=...) first")
        return self.scene

    def _poses(self) -> tuple[np.ndarray, np.ndarray]:
        blocks = np.stack([self.scene.block_pose(index) for index in range(2)])  # [2, 3]
        targets = np.stack([self.scene.zone_pose(index) for index in range(2)])  # [2, 3]
        return blocks, targets

    def _observation(self) -> np.ndarray:
        blocks, targets = self._poses()
        return np.concatenate([blocks.ravel(), self.scene.effector_xy(), self.effector_target, targets.ravel()]).astype(
            np.float32
        )

    def _info(self) -> dict:
        metrics = self._events.metrics()
        return {"is_success": bool(metrics["p2"]), "metrics": metrics, "effector_target": self.effector_target.copy()}


def draw_blocks(rng: np.random.RandomState) -> list[np.ndarray]:
    """(x, y, yaw) of both blocks, more than 0.1 m apart in x."""
    for _ in range(ATTEMPTS):
        first = draw_block(rng, np.inf)
        second = draw_block(rng, first[0])
        if apart(first[0], second[0]):
            return [first, second]
    raise RuntimeError("no initial block positions were found")


def draw_block(rng: np.random.RandomState, avoid_x: float) -> np.ndarray:
    """(x, y, yaw). Gives up on staying away from `avoid_x` when a block in the middle leaves no room."""
    for _ in range(ATTEMPTS):
        xy = BLOCK_CENTRE + rng.uniform(-BLOCK_SPREAD, BLOCK_SPREAD)
        if apart(xy[0], avoid_x):
            break
    return np.array([*xy, rng.uniform(math.pi, 1.0)])  # these bounds, in this order, are the benchmark's


def apart(x: float, other_x: float) -> bool:
    return abs(x - other_x) > MIN_BLOCK_DISTANCE


def draw_targets(rng: np.random.RandomState) -> list[np.ndarray]:
    """(x, y, yaw) of both targets, the first on a random side."""
    offset = TARGET_OFFSET * rng.choice([-1, 1])
    poses = []
    for shift in (offset, -offset):
        xy = TARGET_CENTRE + (shift, 0.0) + rng.uniform(-TARGET_SPREAD, TARGET_SPREAD)
        poses.append(np.array([*xy, math.pi + rng.uniform(-TARGET_YAW_SPREAD, TARGET_YAW_SPREAD)]))
    return poses
