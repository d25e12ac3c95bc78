"""Draws what the cameras of a simulation see."""
from __future__ import annotations

from types import ModuleType

import numpy as np

from diffusion_policy.env.offscreen import VARIABLE, RenderingError, backend


class Cameras:
    """Draws a `mujoco.MjModel` of robosuite through its own cameras, as robosuite does.

    Each instance has an OpenGL context of its own, which it makes the current one whenever it draws.

    Args:
        height, width: px.
        reflections: of the arenas' floors and tables. They cost more than the rest where a CPU draws.

    Raises:
        RenderingError: OpenGL is missing or does not work.
    """

    def __init__(self, mujoco: ModuleType, model, height: int, width: int, reflections: bool):
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:      # EGL, OSMesa and GLFW raise errors of their own kinds
            raise RenderingError(
                f"MuJoCo cannot draw with {VARIABLE}={backend()} ({type(error).__name__}: {error}), which images and videos "
                f"need. Install EGL (Debian: libegl1 libgl1-mesa-dri) or OSMesa (libosmesa6) and choose with {VARIABLE}=egl "
                f"or {VARIABLE}=osmesa"
            ) from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = reflections
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:2] = 0, 1      # what is seen, not what collides

    def image(self, data, camera: str) -> np.ndarray:
        """What `camera` sees, uint8 RGB [H, W, 3]."""
        self._renderer.update_scene(data, camera, self._options)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
