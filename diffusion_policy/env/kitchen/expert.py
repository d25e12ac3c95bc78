"""A scripted expert for the kitchen: it plans the joint positions for one task after the other."""

from __future__ import annotations

import math

import numpy as np

from diffusion_policy.env.kitchen.definition import CONTROL_DT, CONTROL_HIGH, CONTROL_LOW, INITIAL_QPOS
from diffusion_policy.env.kitchen.inverse_kinematics import N_ARM, InverseKinematics, Pose
from diffusion_policy.env.kitchen.subtasks import NOMINAL, SUBTASKS, Variation, Waypoint

# rad per step; the servos' torque limits let the arm move at about 0.8 rad/s (first four joints) and 1.1 rad/s.
JOINT_STEP = np.array([0.055] * 4 + [0.075] * 3)
STRAIGHT_STEP = 0.03  # m per step, along straight lines
RESOLUTION = 0.01  # m, of the inverse kinematics along straight lines
DIRECT_POINTS = 21
SMOOTHING = np.array([0.25, 0.5, 0.25])  # of joint positions over steps
POSTURE = INITIAL_QPOS[:N_ARM]  # the arm stays near it, so that a pose always has the same joint positions


class KitchenExpert:
    """Does tasks in a `KitchenEnv`.

    Args:
        env: with absolute actions.
        speed: scale of all speeds.
    """

    def __init__(self, env, speed: float = 1.0):
        self.data = env.unwrapped.data
        self.kinematics = InverseKinematics(env.unwrapped.model)
        self.speed = speed
        self._arm = self.data.qpos[:N_ARM].copy()  # where the plans so far have led

    def plan(self, task: str, variation: Variation = NOMINAL) -> np.ndarray:
        """The actions [T, 9] that do `task` from where the last plan ended and as the kitchen is now.

        Raises:
            UnreachableError: the arm cannot get there.
        """
        path, fingers = self._path(SUBTASKS[task](self.data, variation), variation.detour)
        arm = np.stack(
            [np.convolve(np.pad(joint, 2, mode="edge"), SMOOTHING, mode="valid") for joint in path.T], axis=1
        )
        fingers = np.concatenate([fingers[:1], fingers, fingers[-1:]])
        velocity = np.gradient(arm, CONTROL_DT, axis=0)
        control = np.stack([self.kinematics.control(q, v) for q, v in zip(arm, velocity, strict=True)])
        self._arm = path[-1]
        actions = np.concatenate([control, fingers[:, None], fingers[:, None]], axis=1)
        return np.clip(actions, CONTROL_LOW, CONTROL_HIGH)

    def _path(self, waypoints: list[Waypoint], detour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Arm joint positions [T, 7] and finger positions [T] along `waypoints`, one row per step."""
        rows, fingers = [self._arm], [waypoints[0].fingers]
        previous = waypoints[0]
        for waypoint in waypoints:
            if waypoint.direct:
                dense, length = self._direct(rows[-1], waypoint.pose, detour), 0.0
            else:
                dense = self._straight(rows[-1], previous.pose, waypoint.pose)
                length = float(np.linalg.norm(waypoint.pose.position - previous.pose.position)) / (len(dense) - 1)
            in_joints = np.max(np.abs(np.diff(dense, axis=0)) / JOINT_STEP, axis=1)
            duration = np.maximum(in_joints, length / STRAIGHT_STEP) / (self.speed * waypoint.speed)
            clock = np.concatenate([[0.0], np.cumsum(duration)])
            n_steps = math.ceil(clock[-1])
            at = clock[-1] * np.arange(1, n_steps + 1) / max(n_steps, 1)
            rows += list(np.stack([np.interp(at, clock, joint) for joint in dense.T], axis=1))
            rows += [dense[-1]] * waypoint.dwell
            fingers += [waypoint.fingers] * (n_steps + waypoint.dwell)
            previous = waypoint
        return np.stack(rows), np.array(fingers)

    def _direct(self, start: np.ndarray, pose: Pose, detour: np.ndarray) -> np.ndarray:
        """Arm joint positions [n, 7] from `start` to `pose`, in proportion to each other but for the `detour`."""
        goal = self.kinematics.solve(pose, start, POSTURE)
        share = np.linspace(0.0, 1.0, DIRECT_POINTS)[:, None]
        way = start + share * (goal - start) + np.sin(np.pi * share) ** 2 * detour
        return np.clip(way, self.kinematics.low, self.kinematics.high)

    def _straight(self, start: np.ndarray, first: Pose, last: Pose) -> np.ndarray:
        """Arm joint positions [n, 7] from `start`, which has the gripper at `first`, in a straight line to `last`."""
        n = max(1, round(float(np.linalg.norm(last.position - first.position)) / RESOLUTION))
        way = [start]
        for step in range(1, n + 1):
            way.append(self.kinematics.solve(first.between(last, step / n), way[-1], POSTURE))
        return np.stack(way)
