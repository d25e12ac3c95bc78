"""Push-T observed through a camera above the table: the image benchmark of Diffusion Policy."""

from __future__ import annotations

import gymnasium
import numpy as np

from diffusion_policy.env.pusht.definition import TABLE_SIZE
from diffusion_policy.env.pusht.pusht_env import PushTEnv

IMAGE_SIZE = 96  # px; the demonstrations' images have it too
IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)


class PushTImageEnv(PushTEnv):
    """Push-T with a picture of the table as observation.

    - "image", float32 [3, 96, 96] in [0, 1]: RGB of the scene: goal, walls, block, agent and the current contact
      points, never the action. The demonstrations hold the same pixels, times 255 and channels last.
    - "agent_pos", float32 [2]: x, y of the agent (px of the 512 x 512 table).

    `render()` draws a frame of its own, in any size and with the action, for videos.

    Attributes:
        frames: draw the image of the next observation. Drawing takes three times as long as a step of the physics;
            while this is False, "image" is all zeros.
    """

    def __init__(self, legacy: bool = False, render_size: int = 96, render_action: bool = True):
        super().__init__(legacy=legacy, render_size=render_size, render_action=render_action)
        self.frames = True
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": gymnasium.spaces.Box(0.0, 1.0, shape=IMAGE_SHAPE, dtype=np.float32),
                "agent_pos": gymnasium.spaces.Box(0.0, float(TABLE_SIZE), shape=(2,), dtype=np.float32),
            }
        )

    def _observation(self) -> dict[str, np.ndarray]:
        image = self._image() if self.frames else np.zeros(IMAGE_SHAPE, dtype=np.float32)
        return {"image": image, "agent_pos": np.array(self.agent.position, dtype=np.float32)}

    def _image(self) -> np.ndarray:
        from diffusion_policy.env.pusht import pusht_draw

        pixels = pusht_draw.draw_scene(self.space, self.goal_vertices, IMAGE_SIZE)  # uint8 [H, W, 3]
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0), dtype=np.float32) / 255
