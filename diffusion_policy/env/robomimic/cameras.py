"""Draws what the cameras of a simulation see."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from diffusion_policy.env.offscreen import make_renderer


class Cameras:
    """Draws a `mujoco.MjModel` of robosuite through its own cameras, as robosuite does.

    What lies outside of a camera's view is left out, unless reflections or shadows could show it: the same pixels
    sooner, as the vertices of a robot's meshes take most of the time.

    Each instance has an OpenGL context of its own and raises what `make_renderer` raises.

    Args:
        height, width: px.
        reflections: of the arenas' floors and tables. They cost more than the rest where a CPU draws.
    """

    def __init__(self, mujoco: ModuleType, model, height: int, width: int, reflections: bool):
        self._mujoco, self._model = mujoco, model
        self._aspect = width / height
        self._renderer = make_renderer(mujoco, model, height, width)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = reflections
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:2] = 0, 1  # what is seen, not what collides
        self._leaves_out = not reflections and not np.any(model.light_castshadow)

    def image(self, data, camera: str) -> np.ndarray:
        """What `camera` sees, uint8 RGB [H, W, 3]."""
        self._renderer.update_scene(data, camera, self._options)
        if self._leaves_out:
            self._leave_out_unseen(data, self._model.camera(camera).id)
        return self._renderer.render()

    def _leave_out_unseen(self, data, camera: int) -> None:
        """Draw nothing for the geoms whose bounding sphere lies outside of the view's pyramid."""
        scene, is_geom = self._renderer.scene, self._mujoco.mjtObj.mjOBJ_GEOM
        geoms = scene.geoms[: scene.ngeom]
        ids = np.array([geom.objid if geom.objtype == is_geom else -1 for geom in geoms])
        radius = np.where(ids < 0, 0.0, self._model.geom_rbound[ids])  # 0: without end, or no geom of the model
        x, y, z = (
            (data.geom_xpos[ids] - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
        ).T  # it looks along -z
        half_height = np.tan(np.radians(self._model.cam_fovy[camera]) / 2)
        outside = z > radius
        for across, half in ((x, half_height * self._aspect), (y, half_height)):
            outside |= (np.abs(across) + half * z) / np.hypot(1.0, half) > radius
        for index in np.flatnonzero(outside & (radius > 0)):
            geoms[index].type = self._mujoco.mjtGeom.mjGEOM_LABEL

    def close(self) -> None:
        self._renderer.close()
