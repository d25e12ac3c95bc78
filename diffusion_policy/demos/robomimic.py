"""Demonstrations of robomimic's Lift, Can and Square by scripted experts, with the images that a policy will see."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from diffusion_policy.common.errors import InputError
from diffusion_policy.common.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix
from diffusion_policy.demos.noise import wandering
from diffusion_policy.env.robomimic.expert import EXPERTS, Style
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv

MAX_STEPS = {"lift": 80, "can": 160, "square": 180}  # an expert that takes longer has struggled
ROTATION_NOISE = 5.0  # rad per m of noise in positions
SHIFTED_STARTS = 0.5  # share of the episodes that start elsewhere than the benchmark's do,
START_SHIFT = np.array([0.05, 0.05, 0.04])  # m, at most,
START_TURN = 0.3  # rad, at most,
SHIFT_STEPS = 8  # after so many steps on the way there
AFTER_SUCCESS = 4  # rows that are recorded after the task was done, for the last action chunks


class RobomimicDemonstrator:
    """Records, all before each step but the action, which is that of the step:

    - with images every part of the observation of `RobomimicEnv`, images as uint8 [T, H, W, 3], the others as float32;
      without, obs, float32 [T, Do];
    - object_pose, float32 [T, 7]: of what is handled: position (m) and quaternion (xyzw);
    - action, float32 [T, 10]: absolute, what the expert intended.

    What is executed is that plus noise, so that the demonstrations show how to get back on the way (DART, Laskey et al.
    2017). A seed draws the size of the noise, from none to `noise`, the expert's `Style`, and for half of the episodes
    another place to start from, a few cm away. Only demonstrations that succeed within `max_steps` are kept.

    Args:
        task: "lift", "can" or "square".
        image: record images; a policy without images has other observations.
        reflections: as in the evaluation.
        noise: m, standard deviation of the noise of the positions where it is largest; 0: none.
        max_steps: None: twice to three times as many as the expert takes.
    """

    def __init__(
        self,
        task: str,
        image: bool = True,
        reflections: bool = False,
        noise: float = 0.01,
        max_steps: int | None = None,
    ):
        if task not in EXPERTS:
            raise InputError(f"there is no scripted expert for {task!r}, only for {', '.join(EXPERTS)}")
        if noise < 0:
            raise InputError(f"noise is a standard deviation in m and cannot be {noise}")
        self.task, self.noise = task, noise
        self.max_steps = MAX_STEPS[task] if max_steps is None else max_steps
        self.env = RobomimicEnv(task, image=image, reflections=reflections)

    def record(self, seed: int) -> dict[str, np.ndarray] | None:
        rng = np.random.default_rng(seed)
        obs = self._start(seed, rng)
        expert = EXPERTS[self.task](self.env, _style(rng))
        steps: list[dict[str, np.ndarray]] = []
        end = None
        for disturbance in _noise(rng, rng.uniform(0.0, self.noise), self.max_steps):
            action = expert.action()
            steps.append({**_stored(obs), "object_pose": expert.object_pose(), "action": action.astype(np.float32)})
            if len(steps) == end:
                return {name: np.stack([step[name] for step in steps]) for name in steps[0]}
            obs, _, done, _, _ = self.env.step(_disturbed(action, disturbance))
            if done and end is None:
                end = len(steps) + AFTER_SUCCESS
        return None

    def close(self) -> None:
        self.env.close()

    def _start(self, seed: int, rng: np.random.Generator) -> np.ndarray | dict:
        """The first observation."""
        is_shifted = rng.uniform() < SHIFTED_STARTS
        shift, turn = rng.uniform(-START_SHIFT, START_SHIFT), rng.uniform(-START_TURN, START_TURN)
        self.env.frames = not is_shifted
        obs, _ = self.env.reset(seed=seed)
        if is_shifted:
            scene = EXPERTS[self.task](self.env).look()
            rotation = Rotation.from_euler("z", turn).as_matrix() @ scene.rotation
            action = np.concatenate(
                [scene.position + shift, matrix_to_rotation_6d(rotation), [0.0]]
            )  # fingers as they are
            for step in range(SHIFT_STEPS):
                self.env.frames = step == SHIFT_STEPS - 1
                obs, *_ = self.env.step(action)
        return obs


def _style(rng: np.random.Generator) -> Style:
    return Style(
        lead=float(rng.uniform(0.065, 0.095)),
        hover=float(rng.uniform(0.04, 0.08)),
        grasp=rng.uniform([-0.005, -0.003, -0.003], [0.005, 0.003, 0.003]),
        turn=float(rng.uniform(-0.15, 0.15)),
        place=rng.uniform(-0.015, 0.015, 2),
        clearance=float(rng.uniform(0.0, 0.03)),
    )


def _noise(rng: np.random.Generator, scale: float, n_steps: int) -> np.ndarray:
    """Position (m) and rotation vector (rad) [n_steps, 6] that wander around zero."""
    return wandering(scale * rng.normal(size=(n_steps, 6)) * [*[1.0] * 3, *[ROTATION_NOISE] * 3])


def _disturbed(action: np.ndarray, disturbance: np.ndarray) -> np.ndarray:
    rotation = Rotation.from_rotvec(disturbance[3:]).as_matrix() @ rotation_6d_to_matrix(action[3:9])
    return np.concatenate([action[:3] + disturbance[:3], matrix_to_rotation_6d(rotation), action[9:]])


def _stored(obs: np.ndarray | dict) -> dict[str, np.ndarray]:
    if not isinstance(obs, dict):
        return {"obs": obs}
    return {
        name: np.round(255 * np.moveaxis(values, 0, -1)).astype(np.uint8) if values.ndim == 3 else values
        for name, values in obs.items()
    }
