"""The robomimic tasks (Lift, Can, Square, Transport, Tool Hang) in the conventions of Diffusion Policy."""

from __future__ import annotations

import gymnasium
import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env.offscreen import import_mujoco
from diffusion_policy.env.robomimic.cameras import Cameras
from diffusion_policy.env.robomimic.definition import CONTROL_HZ, ROBOT_ARM_DIM, task_named, to_robot_action
from diffusion_policy.env.robomimic.simulation import EXTRA, global_random_state, hold_poses, make_simulation

BUILD_SEED = 0  # of what is drawn when a simulation is built that lasts for many episodes


class RobomimicEnv(gymnasium.Env):
    """One robomimic task.

    - Observation with images: by name the images of the task's cameras, float32 RGB [3, H, W] in [0, 1], and of every
      arm "robot0_eef_pos" [3] (m), "robot0_eef_quat" [4] (xyzw), "robot0_gripper_qpos" [2] (m), float32.
    - Observation without: one float32 vector: "object", then the same of every arm.
    - Action, float: with `abs_action` 10 per arm: where the gripper is to be in 1/20 s, in the world: position (m),
      rotation (6D, see `common.rotation`), gripper (-1 open, 1 closed). Otherwise 7 per arm in [-1, 1]: changes of the
      position (5 cm) and of the rotation (axis-angle, 0.5 rad), and the gripper.
    - Reward: 1 when the task is done, which ends the episode (the original goes on until the step limit; the score, the
      largest reward, is the same). The environment itself never truncates.
    - info: "is_success", "metrics" (none).

    `reset(seed=s)` starts the benchmark's episode s, always the same. As in the original, sizes of objects (Lift's
    cube, Transport's hammer) are drawn with the episode without images, and once for all episodes with them.

    Args:
        task: "lift", "can", "square", "transport" or "tool_hang".
        image: observe through cameras.
        reflections: draw reflections, which takes longer than all the rest. A policy should see in evaluation what its
            demonstrations showed; the original has reflections.
        render_size: (height, width) of the frames that `render()` returns, px, even.

    Attributes:
        frames: draw the images of the next observation, the larger part of the time of a step. While this is False, the
            images are zeros and must not be used.
        metadata: with "reflections".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}

    def __init__(
        self,
        task: str,
        image: bool = True,
        abs_action: bool = True,
        reflections: bool = False,
        render_size: tuple[int, int] = (240, 240),
    ):
        self.task = task_named(task)
        self.image, self.abs_action, self.render_size = image, abs_action, tuple(render_size)
        self.metadata = {**type(self).metadata, "reflections": reflections}
        self.render_mode = "rgb_array"
        self.frames = True
        self._mujoco = import_mujoco(EXTRA)
        self._random = np.random.RandomState(BUILD_SEED)
        with global_random_state(self._random):
            self._simulation = make_simulation(self.task, abs_action, objects=not image)
        self._simulation.hard_reset = self._rebuilds = self.task.random_sizes and not image
        self._cameras: dict[tuple[int, int], Cameras] = {}  # by size
        self._is_running = False
        self.observation_space = _observation_space(self.task, image)
        limit = np.inf if abs_action else 1.0
        self.action_space = gymnasium.spaces.Box(-limit, limit, (self.task.action_dim(abs_action),), np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray | dict, dict]:
        """Start the episode of `seed`.

        Args:
            options: "state" [1 + nq + nv], the time, positions and velocities to start from instead, as robomimic's
                data files have them.
        """
        state = _state_option(options or {})
        super().reset(seed=seed)
        if seed is not None:
            self._random.seed(seed)
        if self._rebuilds:
            self._close_cameras()
        with global_random_state(self._random):
            raw = self._simulation.reset()
        if state is not None:
            raw = self._restart_from(state)
        elif not self.image:
            # The original looks a second time here, after which its low-dimensional observations come 2 ms earlier.
            raw = self._simulation._get_observations(force_update=True)
        self._is_running = True
        return self._observation(raw), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray | dict, float, bool, bool, dict]:
        """Control the robots by `action` [Da] for 1/20 s."""
        self._require_running()
        action = np.asarray(action, dtype=np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            (size,) = self.action_space.shape
            raise ValueError(f"an action of {self.task.name!r} is {size} finite numbers, not {action!r}")
        raw, *_ = self._simulation.step(to_robot_action(action) if self.abs_action else action)
        info = self._info()
        return self._observation(raw), float(info["is_success"]), info["is_success"], False, info

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action [Da] that keeps every arm where it is, or is told to be, after the action `last`.

        A gripper goes on as `last` said; before the first action it neither opens nor closes.
        """
        self._require_running()
        if self.abs_action:
            return hold_poses(self._simulation.robots) if last is None else last
        arms = np.zeros((len(self._simulation.robots), ROBOT_ARM_DIM))
        if last is not None:
            arms[:, -1] = np.asarray(last).reshape(arms.shape)[:, -1]
        return arms.reshape(-1)

    def render(self) -> np.ndarray:
        """The scene from the task's first camera, uint8 RGB [H, W, 3]."""
        self._require_running()
        return self._camera(self.render_size).image(self._data, self.task.camera_names[0])

    def state(self) -> np.ndarray:
        """Time, positions and velocities [1 + nq + nv], as robomimic's data files have them."""
        self._require_running()
        return np.array(self._simulation.sim.get_state().flatten())

    @property
    def simulation(self):
        """The environment of robosuite. What is changed in it is changed."""
        return self._simulation

    def close(self) -> None:
        self._close_cameras()
        self._is_running = False

    @property
    def _data(self):
        return self._simulation.sim.data._data

    def _camera(self, size: tuple[int, int]) -> Cameras:
        if size not in self._cameras:
            model = self._simulation.sim.model._model
            self._cameras[size] = Cameras(self._mujoco, model, *size, self.metadata["reflections"])
        return self._cameras[size]

    def _close_cameras(self) -> None:
        while self._cameras:
            self._cameras.popitem()[1].close()

    def _restart_from(self, state: np.ndarray) -> dict:
        sim = self._simulation.sim
        expected = 1 + sim.model.nq + sim.model.nv
        if state.shape != (expected,):
            raise InputError(
                f"a state of {self.task.name!r} is {expected} numbers, not {list(state.shape)}: "
                "it was recorded in another task or version"
            )
        sim.set_state_from_flattened(state)
        sim.forward()
        return self._simulation._get_observations(force_update=True)

    def _observation(self, raw: dict) -> np.ndarray | dict:
        if not self.image:
            parts = [raw["object-state" if name == "object" else name] for name in self.task.lowdim_shapes]
            return np.concatenate(parts).astype(np.float32)
        return {
            name: self._image(name, shape) if len(shape) == 3 else np.asarray(raw[name], dtype=np.float32)
            for name, shape in self.task.image_shapes.items()
        }

    def _image(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if not self.frames:
            return np.zeros(shape, dtype=np.float32)
        pixels = self._camera(shape[1:]).image(self._data, name.removesuffix("_image"))
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0), dtype=np.float32) / 255

    def _info(self) -> dict:
        return {"is_success": bool(self._simulation._check_success()), "metrics": {}}

    def _require_running(self) -> None:
        if not self._is_running:
            raise RuntimeError("no episode is running in this environment: call reset(seed=...) first")


def _observation_space(task, image: bool) -> gymnasium.Space:
    if not image:
        return gymnasium.spaces.Box(-np.inf, np.inf, (task.obs_dim,), np.float32)
    return gymnasium.spaces.Dict(
        {
            name: gymnasium.spaces.Box(0.0, 1.0, shape, np.float32)
            if len(shape) == 3
            else gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
            for name, shape in task.image_shapes.items()
        }
    )


def _state_option(options: dict) -> np.ndarray | None:
    unknown = sorted(set(options) - {"state"})
    if unknown:
        raise ValueError(f"unknown reset options {unknown}; the robomimic tasks know state")
    state = options.get("state")
    if state is None:
        return None
    state = np.asarray(state, dtype=np.float64)
    if not np.isfinite(state).all():
        raise ValueError("reset option 'state' holds a value that is not finite")
    return state
