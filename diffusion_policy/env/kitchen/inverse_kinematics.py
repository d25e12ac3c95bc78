"""Joint positions of the kitchen's arm for poses of its gripper, and the control that holds them against gravity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusion_policy.env.kitchen.definition import CONTROL_HIGH, CONTROL_LOW, INITIAL_QPOS
from diffusion_policy.env.offscreen import import_mujoco

N_ARM = 7
TIP_OFFSET = 0.045  # m, from the site `end_effector` to the tips of the fingers, along the approach direction
DAMPING = 0.02  # of the least-squares steps
POSTURE_GAIN = 0.1  # pull towards the reference posture, in the directions that leave the gripper where it is
LIMIT_MARGIN = 0.005  # rad, kept from the limits of joints and control
MAX_CHANGE = 0.3  # rad, of one joint in one iteration
ROTATION_WEIGHT = 0.3  # m/rad


@dataclass(frozen=True)
class Pose:
    """Where the point between the fingertips is (m, world), and how the gripper is turned.

    At zero angles it points in +y, towards the stove, and its fingers open along x. It is turned about the vertical by
    `yaw`, tilted down by `pitch`, and turned about the direction in which it points by `roll`. rad.
    """

    position: np.ndarray  # [3]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> np.ndarray:
        """[3, 3]; its columns are the axes of the site `end_effector`: up, opening and approach direction."""
        forward = np.array(
            [
                -math.sin(self.yaw) * math.cos(self.pitch),
                math.cos(self.yaw) * math.cos(self.pitch),
                -math.sin(self.pitch),
            ]
        )
        side = np.array([math.cos(self.yaw), math.sin(self.yaw), 0.0])
        up = np.cross(side, forward)
        return np.stack(
            [
                math.cos(self.roll) * up - math.sin(self.roll) * side,
                math.cos(self.roll) * side + math.sin(self.roll) * up,
                forward,
            ],
            axis=1,
        )

    def moved(self, position: np.ndarray) -> Pose:
        return Pose(position, self.yaw, self.pitch, self.roll)

    def between(self, other: Pose, share: float) -> Pose:
        """The pose at `share` (0: this, 1: the other) of the way."""
        values = [
            (1.0 - share) * getattr(self, name) + share * getattr(other, name)
            for name in ("position", "yaw", "pitch", "roll")
        ]
        return Pose(*values)


class UnreachableError(RuntimeError):
    """No joint positions lead to the pose."""


class InverseKinematics:
    """Works in a scratch copy of the state, so that it never disturbs the simulation.

    Args:
        model: of the kitchen.
    """

    def __init__(self, model):
        self._mujoco = import_mujoco("kitchen")
        self.model = model
        self.data = self._mujoco.MjData(model)
        self.data.qpos[:] = INITIAL_QPOS
        self._site = model.site("end_effector").id
        self._body = int(model.site_bodyid[self._site])
        ranges = model.jnt_range[:N_ARM]
        self.low = np.maximum(ranges[:, 0], CONTROL_LOW[:N_ARM]) + LIMIT_MARGIN
        self.high = np.minimum(ranges[:, 1], CONTROL_HIGH[:N_ARM]) - LIMIT_MARGIN
        self.stiffness = model.actuator_gainprm[:N_ARM, 0].copy()
        self.damping = model.dof_damping[:N_ARM].copy()

    def tip(self, arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] of the fingertips and rotation [3, 3] of the gripper at arm joint positions [7]."""
        self._place(arm)
        rotation = self.data.site_xmat[self._site].reshape(3, 3).copy()
        return self.data.site_xpos[self._site] + TIP_OFFSET * rotation[:, 2], rotation

    def solve(
        self, pose: Pose, start: np.ndarray, posture: np.ndarray, tolerance: float = 2e-3, iterations: int = 200
    ) -> np.ndarray:
        """Arm joint positions [7] for `pose`, searched from `start` [7], near `posture` [7] where there is a choice.

        Raises:
            UnreachableError: the pose is missed by more than `tolerance` (m; rotation weighted by 0.3 m/rad).
        """
        arm, residual = self.nearest(pose, start, posture, tolerance, iterations)
        if residual > tolerance:
            raise UnreachableError(f"the arm misses {pose} by {residual:.4f}")
        return arm

    def nearest(
        self, pose: Pose, start: np.ndarray, posture: np.ndarray, tolerance: float, iterations: int
    ) -> tuple[np.ndarray, float]:
        """As `solve`, but returns the last joint positions [7] and by how much they miss the pose."""
        arm, target = np.clip(start, self.low, self.high), pose.rotation()
        residual = math.inf
        jacobian = np.zeros((2, 3, self.model.nv))
        for iteration in range(iterations + 1):
            tip, rotation = self.tip(arm)
            twist = 0.5 * sum(np.cross(rotation[:, k], target[:, k]) for k in range(3))
            error = np.concatenate([pose.position - tip, ROTATION_WEIGHT * twist])
            residual = float(np.linalg.norm(error))
            if iteration >= iterations:
                break
            self._mujoco.mj_jac(self.model, self.data, jacobian[0], jacobian[1], tip, self._body)
            matrix = np.concatenate([jacobian[0][:, :N_ARM], ROTATION_WEIGHT * jacobian[1][:, :N_ARM]])
            inverse = matrix.T @ np.linalg.inv(matrix @ matrix.T + DAMPING**2 * np.eye(6))
            pull = POSTURE_GAIN * (posture - arm)
            step = inverse @ error + pull - inverse @ (matrix @ pull)
            moved = np.clip(arm + np.clip(step, -MAX_CHANGE, MAX_CHANGE), self.low, self.high)
            settled = np.abs(moved - arm).max() < 1e-3
            arm = moved
            if settled and residual < tolerance:
                break
        return arm, residual

    def control(self, arm: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Joint position targets [7] with which the servos follow `arm` [7] at `velocity` [7] (rad/s).

        They are springs with dampers: targets lead by the torques of gravity and damping over the stiffness.
        """
        self._place(arm)
        torque = np.zeros(self.model.nv)
        self._mujoco.mj_rne(self.model, self.data, 0, torque)
        return arm + (torque[:N_ARM] + self.damping * velocity) / self.stiffness

    def _place(self, arm: np.ndarray) -> None:
        """Moves the scratch copy, which stays at rest."""
        self.data.qpos[:N_ARM] = arm
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_comPos(self.model, self.data)
