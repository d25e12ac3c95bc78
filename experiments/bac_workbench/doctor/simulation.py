"""Checks of the simulators and of what MuJoCo draws with."""

from __future__ import annotations

import ctypes.util
import importlib
import os
from importlib import metadata

import numpy as np

from bac_workbench.doctor.rows import FAIL, MISSING, PASS, Row, first_line, install_extra, reinstall, system_library

STEPS = 8
# Grey ground and a red ball under a light: no frame of one colour.
SCENE = """
<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="2 2 .1" rgba=".5 .5 .5 1"/>
<geom type="sphere" size=".3" pos="0 0 .3" rgba="1 0 0 1"/><camera name="above" pos="0 0 3"/></worldbody></mujoco>
"""
GL_PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
# check -> (title, function that describes the environment, its arguments, distributions named in the report)
SIMULATORS = {
    "pusht": ("Push-T", "pusht:keypoints_environment", {}, ("pymunk",)),
    "blockpush": ("Block Pushing", "block_pushing:block_pushing_environment", {}, ("pybullet",)),
    "kitchen": ("Kitchen", "kitchen:kitchen_environment", {}, ("mujoco", "gymnasium-robotics")),
    "lift": (
        "robomimic Lift",
        "robomimic:robomimic_environment",
        {"task": "lift", "image": False, "abs_action": False},
        ("robosuite", "mujoco"),
    ),
}


def simulator(name: str) -> list[Row]:
    """Starts an episode, executes a few actions and looks at the numbers that come back."""
    from diffusion_policy.env import offscreen
    from diffusion_policy.env.extras import MissingExtraError
    from diffusion_policy.env_runner.task import Task

    title, function, arguments, packages = SIMULATORS[name]
    module, function = function.split(":")
    environment = getattr(importlib.import_module(f"diffusion_policy.env_runner.{module}"), function)(**arguments)
    task, extra = Task(name, environment), environment.requirements.extra
    try:
        task.check_installed()
    except MissingExtraError as error:
        return [Row(title, first_line(str(error).split(". Install")[0]), MISSING, install_extra(extra), needed=False)]
    try:
        slot = task.make_slot()
        obs = slot.reset(task.seeds.test_start_seed).obs
        chunk = np.repeat(still(obs, slot.env.action_space)[None], task.chunking.n_action_steps, axis=0)
        slot.step(chunk)  # the first steps compile and load, and are not timed
        steps, seconds = 0, 0.0
        while steps < STEPS:
            answer = slot.step(chunk)
            steps, seconds = steps + answer.env_steps, seconds + answer.seconds
            values = answer.obs.values() if isinstance(answer.obs, dict) else [answer.obs]
            if not all(np.isfinite(value).all() for value in values):
                return [Row(title, "observations are not finite", FAIL, reinstall(extra))]
        slot.close()
    except Exception as error:  # of packages that are installed but do not work
        asked = os.environ.get(offscreen.VARIABLE)
        if asked and (
            "gl" in str(error) or isinstance(error, offscreen.RenderingError)
        ):  # PyOpenGL names the functions that it lacks
            return [Row(title, f"{offscreen.VARIABLE}={asked}: {first_line(error)}", FAIL, _another(asked))]
        return [Row(title, first_line(error), FAIL, system_library(str(error)) or reinstall(extra))]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return [Row(title, f"{versions}; {1e3 * seconds / steps:.1f} ms per step", PASS)]


def still(obs, space) -> np.ndarray:
    """An action within the limits of `space`, or of zeros where it has none: the numbers only have to be possible."""
    low, high = np.asarray(space.low, float), np.asarray(space.high, float)
    return np.where(np.isfinite(low) & np.isfinite(high), (low + high) / 2, 0.0).astype(np.float32)


def renderer(backend: str | None = None) -> list[Row]:
    """Draws a frame with MuJoCo.

    Args:
        backend: "egl" or "osmesa"; None: the one that the project's commands use here.
    """
    from diffusion_policy.env import offscreen
    from diffusion_policy.env.extras import MissingExtraError

    title = {"egl": "renderer EGL", "osmesa": "renderer OSMesa", None: "renderer in use"}[backend]
    needed = backend is None  # of the other two either will do
    if backend is not None:
        library = offscreen.LIBRARIES[backend]
        if ctypes.util.find_library(library) is None:
            return [
                Row(title, f"the library {library} is not here", MISSING, f"apt install {GL_PACKAGES[backend]}", needed)
            ]
        os.environ[offscreen.VARIABLE] = backend
        os.environ.pop("PYOPENGL_PLATFORM", None)
    asked = os.environ.get(offscreen.VARIABLE)
    try:
        mujoco = offscreen.import_mujoco("kitchen")
    except MissingExtraError as error:
        if importlib.util.find_spec("mujoco") is None:
            return [
                Row(
                    title,
                    "MuJoCo, which draws Kitchen and robomimic, is not installed",
                    MISSING,
                    install_extra("kitchen"),
                    needed,
                )
            ]
        return [Row(title, first_line(error), FAIL, system_library(str(error)) or _another(asked), needed)]
    except Exception as error:  # of PyOpenGL, about a library that it has not found
        return [Row(title, f"{offscreen.VARIABLE}={asked}: {first_line(error)}", FAIL, _another(asked), needed)]
    used = offscreen.backend()
    try:
        drawing = offscreen.make_renderer(mujoco, mujoco.MjModel.from_xml_string(SCENE), 48, 64)
        model = drawing.model
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        drawing.update_scene(data, "above")
        frame = drawing.render()
        device = importlib.import_module("OpenGL.GL").glGetString(0x1F01).decode()  # GL_RENDERER
        drawing.close()
    except Exception as error:  # the errors of EGL, OSMesa and GLFW are of their own kinds
        return [Row(title, first_line(error), FAIL, _another(used), needed)]
    how = "" if backend is not None else f" ({offscreen.VARIABLE}={asked})" if asked else " (chosen by itself)"
    middle, corner = frame[24, 32].astype(int), frame[2, 2].astype(int)
    if not (frame.shape == (48, 64, 3) and middle[0] > middle[1] + 50 and abs(corner[0] - corner[1]) < 20):
        return [
            Row(
                title,
                f"{used}{how} on {device}: a red ball on grey ground is not what was drawn",
                FAIL,
                _another(used),
                needed,
            )
        ]
    return [Row(title, f"{used}{how} on {device}", PASS, "", needed)]


def _another(backend: str | None) -> str:
    """How to get a renderer other than the one that failed."""
    if backend is None or backend == "none":
        return f"apt install {GL_PACKAGES['egl']}"
    if backend == "egl":
        return f"apt install {GL_PACKAGES['egl']}, or apt install {GL_PACKAGES['osmesa']} and export MUJOCO_GL=osmesa"
    return f"unset MUJOCO_GL, or apt install {GL_PACKAGES['osmesa']}" if backend == "osmesa" else "unset MUJOCO_GL"
