"""MuJoCo without a display: which OpenGL it draws with, and a renderer for video frames."""

from __future__ import annotations

import ctypes
import ctypes.util
import difflib
import os
import platform
from types import ModuleType

import numpy as np

from diffusion_policy.common.errors import UserError
from diffusion_policy.env.extras import import_extra

VARIABLE = "MUJOCO_GL"
LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}  # in order of preference: a GPU where there is one, or the CPU


PLATFORM = "PYOPENGL_PLATFORM"  # of PyOpenGL, through which MuJoCo uses EGL and OSMesa
_FILES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian
_OFF = ("disable", "disabled", "off", "false", "0")
_WINDOWED = ("glfw", "glx", "enable", "enabled", "on", "true", "1")
_SYSTEM_OWN = {"Darwin": ("cgl",), "Windows": ("wgl",)}


class RenderingError(UserError, OSError):
    """Frames cannot be drawn on this machine."""


def choose_backend() -> None:
    """Sets `MUJOCO_GL`, if it is not set, to the first of EGL and OSMesa that is installed.

    MuJoCo reads the variable when it is imported: later choices do nothing.
    """
    if not os.environ.get(VARIABLE):
        installed = [backend for backend, library in LIBRARIES.items() if ctypes.util.find_library(library)]
        if installed:
            os.environ[VARIABLE] = installed[0]


def check_backend(draws: bool = False) -> None:
    """Raises RenderingError if the environment's variables ask for an OpenGL that does not exist or is not installed.

    MuJoCo cannot even be imported then, and says something else. Nothing is imported here.

    Args:
        draws: pictures are needed for certain, so that a window system, if it is asked for, has to be there.
    """
    value = os.environ.get(VARIABLE, "")
    chosen, system = value.lower().strip(), platform.system()
    unset = f"unset {VARIABLE}, so that what is installed is found"
    if chosen in ("", *_OFF):
        if draws and chosen in _OFF:
            raise RenderingError(f"{VARIABLE}={value} turns drawing off, which images need: {unset}")
        return
    offscreen = tuple(LIBRARIES) if system == "Linux" else ()
    valid = (*offscreen, *_WINDOWED, *_SYSTEM_OWN.get(system, ()))
    if chosen not in valid:
        near = difflib.get_close_matches(chosen, valid, n=1)
        suggestion = f" Did you mean {VARIABLE}={near[0]}?" if near else ""
        raise RenderingError(
            f"{VARIABLE}={value} names no OpenGL of MuJoCo's.{suggestion} Use one of {', '.join(valid[:4])}, or {unset}"
        )
    if chosen in offscreen:
        if not _is_installed(chosen):
            other = next((name for name in LIBRARIES if name != chosen and _is_installed(name)), None)
            instead = f"set {VARIABLE}={other}, which is installed" if other else unset
            raise RenderingError(
                f"{VARIABLE}={value} asks for {LIBRARIES[chosen]}, whose library {_FILES[chosen][0]} is not installed. "
                f"Install it (Debian: {_PACKAGES[chosen]}), or {instead}"
            )
        clash = os.environ.get(PLATFORM, "")
        if clash and clash.lower() != chosen:
            raise RenderingError(
                f"{PLATFORM}={clash} contradicts {VARIABLE}={backend()}: unset {PLATFORM}, or set both alike"
            )
    elif (
        draws
        and system == "Linux"
        and chosen in _WINDOWED
        and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    ):
        raise RenderingError(
            f"{VARIABLE}={value} draws through a window system, and there is none (DISPLAY is not set): "
            f"set {VARIABLE}=egl or {VARIABLE}=osmesa, or {unset}"
        )


def _is_installed(name: str) -> bool:
    if ctypes.util.find_library(LIBRARIES[name]):
        return True
    for file in _FILES[name]:  # find_library needs tools that small containers lack
        try:
            ctypes.CDLL(file)
            return True
        except OSError:
            continue
    return False


def import_mujoco(extra: str) -> ModuleType:
    """MuJoCo, after `choose_backend`.

    Raises:
        MissingExtraError: it is not installed; `extra` installs it.
        RenderingError: the environment's variables keep it from being imported, see `check_backend`.
    """
    choose_backend()
    check_backend()
    try:
        return import_extra("mujoco", extra)
    except (AttributeError, RuntimeError, TypeError) as error:  # of PyOpenGL, about a library that it cannot use
        raise RenderingError(
            f"MuJoCo cannot be imported with {VARIABLE}={backend()} ({type(error).__name__}: {error}): the OpenGL "
            f"library is damaged or too old. Try {VARIABLE}=egl, {VARIABLE}=osmesa, or {VARIABLE}=disable where "
            "nothing is drawn"
        ) from error


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
        check_backend(draws=True)
    except RenderingError as error:  # MuJoCo would say less, and fail once more as it cleans up
        raise RenderingError(f"{error}{otherwise}") from None
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # EGL, OSMesa and GLFW raise errors of their own kinds
        library = f"with {VARIABLE}={backend()}" if os.environ.get(VARIABLE) else "(neither EGL nor OSMesa was found)"
        raise RenderingError(
            f"MuJoCo cannot draw {library} ({type(error).__name__}: {error}), which images and videos "
            "need. Install EGL (Debian: libegl1 libgl1-mesa-dri) or OSMesa (libosmesa6) and choose with "
            f"{VARIABLE}=egl or {VARIABLE}=osmesa{otherwise}"
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
