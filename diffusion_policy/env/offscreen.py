"""MuJoCo without a display: which OpenGL it draws with, and a renderer for video frames."""
from __future__ import annotations

import ctypes.util
import os
from types import ModuleType

import numpy as np

from diffusion_policy.env.extras import import_extra

VARIABLE = "MUJOCO_GL"
LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}      # in order of preference: a GPU where there is one, or the CPU


class RenderingError(RuntimeError):
    """Frames cannot be drawn on this machine."""


def choose_backend() -> None:
    """Sets `MUJOCO_GL`, if it is not set, to the first of EGL and OSMesa that is installed.

    MuJoCo reads the variable when it is imported: later choices do nothing.
    """
    if not os.environ.get(VARIABLE):
        found = [backend for backend, library in LIBRARIES.items() if ctypes.util.find_library(library)]
        if found:
            os.environ[VARIABLE] = found[0]


def import_mujoco(extra: str) -> ModuleType:
    """MuJoCo, after `choose_backend`; raises `MissingExtraError` naming `extra` if it is not installed."""
    choose_backend()
    return import_extra("mujoco", extra)


def backend() -> str:
    """The OpenGL that MuJoCo uses in this process: "egl", "osmesa", "glfw" (a window system), ..., or "none"."""
    return os.environ.get(VARIABLE) or "none"


def make_renderer(mujoco: ModuleType, model, height: int, width: int, otherwise: str = ""):
    """A `mujoco.Renderer` with an OpenGL context of its own, which it makes the current one whenever it draws.

    Args:
        otherwise: what a user can do without it, for the error.

    Raises:
        RenderingError: OpenGL is missing or does not work.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:      # EGL, OSMesa and GLFW raise errors of their own kinds
        found = f"with {VARIABLE}={backend()}" if os.environ.get(VARIABLE) else "(neither EGL nor OSMesa was found)"
        raise RenderingError(
            f"MuJoCo cannot draw {found} ({type(error).__name__}: {error}), which images and videos "
            f"need. Install EGL (Debian: libegl1 libgl1-mesa-dri) or OSMesa (libosmesa6) and choose with {VARIABLE}=egl "
            f"or {VARIABLE}=osmesa{otherwise}"
        ) from error


class OffscreenRenderer:
    """Draws a `mujoco.MjModel` into frames uint8 RGB [height, width, 3]; raises what `make_renderer` raises.

    Without shadows and reflections, which cost twenty times the rest where a CPU draws.
    """

    def __init__(self, mujoco: ModuleType, model, height: int, width: int, camera: dict):
        self._renderer = make_renderer(mujoco, model, height, width, "; or record no videos: eval.n_videos=0")
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False
        self._camera = mujoco.MjvCamera()
        for name, value in camera.items():
            setattr(self._camera, name, value)

    def frame(self, data) -> np.ndarray:
        self._renderer.update_scene(data, self._camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
