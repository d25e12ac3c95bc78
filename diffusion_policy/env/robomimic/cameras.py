"""Draws what the cameras of a simulation see."""
from __future__ import annotations

from types import ModuleType

import numpy as np

from diffusion_policy.env.offscreen import make_renderer


class Cameras:
    """Draws a `mujoco.MjModel` of robosuite through its own cameras, as robosuite does.

    Each instance has an OpenGL context of its own and raises what `make_renderer` raises.

    Args:
        height, width: px.
        reflections: of the arenas' floors and tables. They cost more than the rest where a CPU draws.
    """

    def __init__(self, mujoco: ModuleType, model, height: int, width: int, reflections: bool):
        self._renderer = make_renderer(mujoco, model, height, width)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = reflections
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:2] = 0, 1      # what is seen, not what collides

    def image(self, data, camera: str) -> np.ndarray:
        """What `camera` sees, uint8 RGB [H, W, 3]."""
        self._renderer.update_scene(data, camera, self._options)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
