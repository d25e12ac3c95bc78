"""Push-T observed through keypoints on the block: the low-dimensional benchmark of Diffusion Policy."""

from __future__ import annotations

import gymnasium
import numpy as np

from diffusion_policy.env.pusht.definition import TABLE_SIZE
from diffusion_policy.env.pusht.pusht_env import PushTEnv

# [9, 2] px, in the frame of the block. The demonstrations' `keypoint` array holds these points in the table's frame.
BLOCK_KEYPOINTS = np.array(
    [
        [9.269786713763871, 90.04097352393619],
        [-60.983472364471474, -1.1867297607997276],
        [60.91275557727772, -1.3933642242328201],
        [-0.2705034390160016, 25.54362499146542],
        [-14.064927576212233, 122.81585355412153],
        [39.002738500170146, 32.857404276587566],
        [-39.966414424694534, 32.729655446429945],
        [-16.82434437939744, 62.86317892234989],
        [23.54146122024909, -1.7002881094626152],
    ]
)
N_KEYPOINT_VALUES = BLOCK_KEYPOINTS.size + 2


class PushTKeypointsEnv(PushTEnv):
    """Push-T with keypoints as observation, float64 [40].

    Values 0..19: the 9 block keypoints and the agent, (x, y) each, in px. Values 20..39: their visibility, always 1
    here (the published benchmark hides none). A policy sees the first 20 only.
    """

    def __init__(self, legacy: bool = False, render_size: int = 96, render_action: bool = True):
        super().__init__(legacy=legacy, render_size=render_size, render_action=render_action)
        high = np.array([float(TABLE_SIZE)] * N_KEYPOINT_VALUES + [1.0] * N_KEYPOINT_VALUES)
        self.observation_space = gymnasium.spaces.Box(np.zeros_like(high), high, dtype=np.float64)

    def _observation(self) -> np.ndarray:
        keypoints = block_keypoints(np.array([*self.block.position, self.block.angle]))
        return np.concatenate([keypoints.ravel(), self.agent.position, np.ones(N_KEYPOINT_VALUES)])


def block_keypoints(block_pose: np.ndarray) -> np.ndarray:
    """Keypoints [9, 2] (px, table frame) of a block at pose [3] = x, y (px), angle (rad)."""
    x, y, angle = block_pose
    cos, sin = np.cos(angle), np.sin(angle)
    return BLOCK_KEYPOINTS @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])
