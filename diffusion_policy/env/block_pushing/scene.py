"""The simulated table of Block Pushing: an xArm6 that holds an effector upright over the board, two cubes, two
zones."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffusion_policy.env.block_pushing import assets
from diffusion_policy.env.extras import import_extra


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Bullet's greetings, which its C code prints, out of the output of whoever uses this module."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "w") as sink:
        saved = {stream: os.dup(stream) for stream in (1, 2)}
        try:
            for stream in saved:
                os.dup2(sink.fileno(), stream)
            yield
        finally:
            libc.fflush(None)
            for stream, copy in saved.items():
                os.dup2(copy, stream)
                os.close(copy)


with quiet():
    pybullet = import_extra("pybullet", "blockpush")
    pybullet_data = import_extra("pybullet_data", "blockpush")
    bullet_client = import_extra("pybullet_utils.bullet_client", "blockpush")

SIM_HZ = 240
SETTLE_STEPS = 100
INITIAL_JOINTS = (
    -0.9254632489674508,
    0.6990770671568564,
    -1.106629064060494,  # rad; the effector hangs down
    0.0006653351931553931,
    0.3987969742311386,
    -4.063402065624296,
)  # over (0.3, -0.4)
EFFECTOR_LINK = 6
EFFECTOR_HEIGHT = 0.06  # m, of the flange that the effector is fixed to
EFFECTOR_DOWN = (0.0, 1.0, 0.0, 0.0)  # xyzw, half a turn about y
JOINT_FORCE = 1200.0
CAMERA_EYE, CAMERA_TARGET, CAMERA_FOV = (1.0, 0.0, 0.75), (0.25, 0.0, 0.0), 50.1


class Scene:
    """Everything pybullet. Positions are metres in the frame of the arm's base, x forward, y left.

    A scene serves one episode: Bullet's contact cache and the order of its bodies depend on what a world has been
    through, and tiny differences grow with every push.

    Args:
        blocks, zones: (x, y, yaw) of both blocks and of both zones, m and rad.
    """

    def __init__(self, blocks: Sequence[np.ndarray], zones: Sequence[np.ndarray]):
        with quiet():
            self.client = bullet_client.BulletClient(pybullet.DIRECT)
        self.client.setPhysicsEngineParameter(enableFileCaching=0)
        self.client.setGravity(0, 0, -9.8)
        data = Path(pybullet_data.getDataPath())
        self.client.loadURDF(str(data / "plane.urdf"), (0, 0, -0.001))
        with tempfile.TemporaryDirectory(prefix="block_pushing_") as name:
            folder = Path(name)
            assets.write_assets(folder)
            self.client.loadURDF(str(folder / assets.BOARD), (0.35, 0, 0))
            self._arm = self.client.loadURDF(str(data / "xarm" / "xarm6_robot.urdf"), (0, 0, 0))
            self._joints = [
                index
                for index in range(self.client.getNumJoints(self._arm))
                if self.client.getJointInfo(self._arm, index)[2] == pybullet.JOINT_REVOLUTE
            ]
            self._place_arm()
            self._attach_effector(str(folder / assets.EFFECTOR))
            self.advance(SETTLE_STEPS)
            # Zones are drawn, never touched. Blocks start halfway in the table, which lifts them within the first
            # steps.
            self._zones = [self._load(folder / file, pose, 0.02) for file, pose in zip(assets.ZONES, zones)]
            self._blocks = [self._load(folder / file, pose, 0.0) for file, pose in zip(assets.BLOCKS, blocks)]

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.client.stepSimulation()

    def block_pose(self, index: int) -> np.ndarray:
        """x, y (m), yaw (rad, in [0, pi)) of a block, float64 [3]."""
        return self._pose(self._blocks[index])

    def zone_pose(self, index: int) -> np.ndarray:
        """x, y (m), yaw (rad, in [0, pi)) of a zone, float64 [3]."""
        return self._pose(self._zones[index])

    def effector_xy(self) -> np.ndarray:
        return np.array(self.client.getLinkState(self._arm, EFFECTOR_LINK)[0][:2])

    def aim_effector(self, xy: np.ndarray) -> None:
        """Let the arm's position controllers aim for the joint angles that bring the effector to `xy`."""
        angles = [state[0] for state in self.client.getJointStates(self._arm, self._joints)]
        solution = self.client.calculateInverseKinematics(
            self._arm,
            EFFECTOR_LINK,
            (*xy, EFFECTOR_HEIGHT),
            EFFECTOR_DOWN,
            lowerLimits=[-17.0] * 6,
            upperLimits=[17.0] * 6,
            jointRanges=[17.0] * 6,
            restPoses=[0.0, 0.0, *angles[2:]],
            maxNumIterations=100,
            residualThreshold=1e-10,
        )
        self.client.setJointMotorControlArray(
            self._arm, self._joints, pybullet.POSITION_CONTROL, targetPositions=solution, forces=[JOINT_FORCE] * 6
        )

    def render(self, height: int, width: int) -> np.ndarray:
        """Software-rendered view from across the table, uint8 RGB [H, W, 3]."""
        view = self.client.computeViewMatrix(CAMERA_EYE, CAMERA_TARGET, (0, 0, 1))
        projection = self.client.computeProjectionMatrixFOV(CAMERA_FOV, width / height, 0.01, 10.0)
        pixels = self.client.getCameraImage(
            width,
            height,
            view,
            projection,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
        )[2]
        return np.array(pixels, dtype=np.uint8).reshape(height, width, 4)[..., :3]

    def close(self) -> None:
        if self.client is not None:
            self.client.disconnect()
            self.client = None

    def _place_arm(self) -> None:
        for joint, angle in zip(self._joints, INITIAL_JOINTS):
            self.client.changeDynamics(self._arm, joint, linearDamping=0, angularDamping=0)
            self.client.resetJointState(self._arm, joint, angle)

    def _attach_effector(self, path: str) -> None:
        position, orientation = self.client.getLinkState(self._arm, EFFECTOR_LINK)[:2]
        effector = self.client.loadURDF(path, position, orientation)
        weld = self.client.createConstraint(
            self._arm, EFFECTOR_LINK, effector, -1, pybullet.JOINT_FIXED, (0, 0, 0), (0, 0, 0), (0, 0, 0)
        )
        self.client.changeConstraint(weld, maxForce=50)

    def _load(self, path: Path, pose: np.ndarray, height: float) -> int:
        x, y, yaw = pose
        return self.client.loadURDF(str(path), (x, y, height), (0, 0, math.sin(yaw / 2), math.cos(yaw / 2)))

    def _pose(self, body: int) -> np.ndarray:
        (px, py, _), (x, y, z, w) = self.client.getBasePositionAndOrientation(body)
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return np.array([px, py, yaw % math.pi])
