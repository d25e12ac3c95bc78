"""What the robomimic tasks are, apart from their simulation: robots, cameras, observations, actions. Imports no
simulator.

Five tasks of robosuite (Zhu et al. 2020) as robomimic (Mandlekar et al. 2021) and Diffusion Policy (Chi et al. 2023)
set them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.common.rotation import axis_angle_to_rotation_6d, rotation_6d_to_axis_angle

CONTROL_HZ = 20
POLICY_ARM_DIM = 10  # of an absolute action of a policy: position (m), rotation (6D), gripper (-1 open, 1 closed)
ROBOT_ARM_DIM = 7  # of an action of the simulation: position, axis-angle (rad), gripper; or their changes, in [-1, 1]
PROPRIOCEPTION = (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2))  # m, xyzw, m
DATASETS = ("ph", "mh")  # proficient or multiple humans gave the demonstrations


@dataclass(frozen=True)
class RobomimicTask:
    """One task.

    Attributes:
        robosuite_name: of its environment.
        object_dim: size of the observation "object", poses of what the robots handle.
        cameras: what a policy with images sees; videos show the first one. Listed with the arm they belong to.
        max_steps: length of an episode by data set; a task without a data set has no demonstrations of that kind.
        random_sizes: sizes of objects are drawn, too, whenever the simulation is built.
    """

    name: str
    robosuite_name: str
    object_dim: int
    max_steps: Mapping[str, int]
    cameras: tuple[tuple[str, ...], ...] = (("agentview", "robot0_eye_in_hand"),)
    image_size: int = 84
    random_sizes: bool = False

    @property
    def n_arms(self) -> int:
        return len(self.cameras)

    def action_dim(self, abs_action: bool) -> int:
        """Da of a policy."""
        return self.n_arms * (POLICY_ARM_DIM if abs_action else ROBOT_ARM_DIM)

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera for cameras in self.cameras for camera in cameras)

    @property
    def lowdim_shapes(self) -> dict[str, tuple[int, ...]]:
        """Parts of the observation of a policy without images, in the order in which they are concatenated."""
        arms = {f"robot{arm}_{name}": (size,) for arm in range(self.n_arms) for name, size in PROPRIOCEPTION}
        return {"object": (self.object_dim,), **arms}

    @property
    def obs_dim(self) -> int:
        """Do of a policy without images."""
        return sum(size for (size,) in self.lowdim_shapes.values())

    @property
    def image_shapes(self) -> dict[str, tuple[int, ...]]:
        """Observation of a policy with images, in the order of the original checkpoints: per arm its cameras and
        itself."""
        shapes: dict[str, tuple[int, ...]] = {}
        for arm, cameras in enumerate(self.cameras):
            shapes |= {f"{camera}_image": (3, self.image_size, self.image_size) for camera in cameras}
            shapes |= {f"robot{arm}_{name}": (size,) for name, size in PROPRIOCEPTION}
        return shapes


TASKS: Mapping[str, RobomimicTask] = MappingProxyType(
    {
        task.name: task
        for task in (
            RobomimicTask("lift", "Lift", 10, {"ph": 400, "mh": 500}, random_sizes=True),
            RobomimicTask("can", "PickPlaceCan", 14, {"ph": 400, "mh": 500}),
            RobomimicTask("square", "NutAssemblySquare", 14, {"ph": 400, "mh": 500}),
            RobomimicTask(
                "transport",
                "TwoArmTransport",
                41,
                {"ph": 700, "mh": 700},
                random_sizes=True,
                cameras=(("shouldercamera0", "robot0_eye_in_hand"), ("shouldercamera1", "robot1_eye_in_hand")),
            ),
            RobomimicTask(
                "tool_hang", "ToolHang", 44, {"ph": 700}, cameras=(("sideview", "robot0_eye_in_hand"),), image_size=240
            ),
        )
    }
)

# Operational space control of the gripper's pose. Data of the benchmark, with the names of its data files.
CONTROLLER = MappingProxyType(
    {
        "type": "OSC_POSE",
        "input_max": 1,
        "input_min": -1,
        "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
        "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
        "kp": 150,
        "damping": 1,
        "impedance_mode": "fixed",
        "kp_limits": [0, 300],
        "damping_limits": [0, 10],
        "position_limits": None,
        "orientation_limits": None,
        "uncouple_pos_ori": True,
        "control_delta": True,
        "interpolation": None,
        "ramp_ratio": 0.2,
    }
)


def task_named(name: str) -> RobomimicTask:
    if name not in TASKS:
        raise InputError(f"there is no robomimic task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def env_metadata(task: RobomimicTask, abs_action: bool) -> dict:
    """How the demonstrations describe the environment they were recorded in ("env_args" of robomimic's data files)."""
    arms = {"robots": ["Panda"] * task.n_arms}
    if task.n_arms == 2:
        arms["env_configuration"] = "single-arm-opposed"
    controller = deepcopy(dict(CONTROLLER)) | {"control_delta": not abs_action}
    return {
        "env_name": task.robosuite_name,
        "type": 1,
        "env_kwargs": {
            **arms,
            "controller_configs": controller,
            "control_freq": CONTROL_HZ,
            "reward_shaping": False,
            "ignore_done": True,
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            "use_object_obs": True,
            "camera_names": list(task.camera_names),
            "camera_heights": task.image_size,
            "camera_widths": task.image_size,
            "camera_depths": False,
        },
    }


def to_robot_action(action: np.ndarray) -> np.ndarray:
    """Absolute actions of a policy [..., 10 n_arms] -> of the simulation [..., 7 n_arms].

    Raises:
        ValueError: the six numbers of a rotation are not one.
    """
    arms = _by_arm(action, POLICY_ARM_DIM)
    arms = np.concatenate([arms[..., :3], rotation_6d_to_axis_angle(arms[..., 3:9]), arms[..., 9:]], axis=-1)
    return arms.reshape(*arms.shape[:-2], -1)


def to_policy_action(action: np.ndarray) -> np.ndarray:
    """Absolute actions of the simulation [..., 7 n_arms] -> of a policy [..., 10 n_arms]."""
    arms = _by_arm(action, ROBOT_ARM_DIM)
    arms = np.concatenate([arms[..., :3], axis_angle_to_rotation_6d(arms[..., 3:6]), arms[..., 6:]], axis=-1)
    return arms.reshape(*arms.shape[:-2], -1)


def _by_arm(action: np.ndarray, size: int) -> np.ndarray:
    action = np.asarray(action, dtype=np.float64)
    if action.ndim == 0 or action.shape[-1] == 0 or action.shape[-1] % size:
        raise ValueError(f"an action has {size} numbers per arm, not the shape {list(action.shape)}")
    return action.reshape(*action.shape[:-1], action.shape[-1] // size, size)
