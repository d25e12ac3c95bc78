"""robosuite, imported and built in the way that the robomimic tasks need."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from diffusion_policy.common.rotation import matrix_to_rotation_6d
from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.offscreen import VARIABLE, RenderingError, choose_backend
from diffusion_policy.env.robomimic.definition import RobomimicTask, env_metadata

EXTRA = "robomimic"
VERSION = "1.4"  # in 1.5 NumPy's seed no longer decides how an episode starts
NO_DRAWING = "glx"  # a backend that robosuite imports without any OpenGL


def import_robosuite() -> ModuleType:
    """robosuite, without its advice on how to configure it.

    Raises:
        MissingExtraError: it is not installed.
        RenderingError: the OpenGL that the environment variable MUJOCO_GL asks for is not installed.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    choose_backend()
    chosen = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = chosen or NO_DRAWING
    try:
        robosuite = import_extra("robosuite", EXTRA)
    except AttributeError as error:  # of PyOpenGL, about a library that it has not found
        raise RenderingError(
            f"robosuite cannot be imported with {VARIABLE}={chosen}: {error}. Install that OpenGL (Debian: "
            f"libegl1 libgl1-mesa-dri, or libosmesa6) or unset {VARIABLE}"
        ) from error
    finally:
        # robosuite has overwritten the choice of those who asked for a window system.
        os.environ.pop(VARIABLE) if chosen is None else os.environ.update({VARIABLE: chosen})
    if not robosuite.__version__.startswith(f"{VERSION}."):
        raise ImportError(
            f"robosuite {robosuite.__version__} starts other episodes than version {VERSION} does. "
            f"Install the pinned one with: pip install 'bac-workbench[{EXTRA}]'"
        )
    return robosuite


def make_simulation(task: RobomimicTask, abs_action: bool, objects: bool):
    """The environment of robosuite, as robomimic makes it but without cameras.

    Args:
        objects: observe what the robots handle.
    """
    robosuite = import_robosuite()
    options = env_metadata(task, abs_action)["env_kwargs"]
    return robosuite.make(task.robosuite_name, **{**options, "use_object_obs": objects})


def hold_poses(robots: Iterable) -> np.ndarray:
    """The absolute action [10 n_arms] that keeps robosuite's `robots` where they are, with idle grippers."""
    parts: list[np.ndarray] = []
    for robot in robots:
        robot.controller.update(force=True)
        parts += [robot.controller.ee_pos, matrix_to_rotation_6d(robot.controller.ee_ori_mat), np.zeros(1)]
    return np.concatenate(parts)


@contextmanager
def global_random_state(own: np.random.RandomState) -> Iterator[None]:
    """Lends `own` to NumPy's global functions, from which robosuite draws, so that nobody else's numbers change."""
    outer = np.random.get_state()
    np.random.set_state(own.get_state())
    try:
        yield
    finally:
        own.set_state(np.random.get_state())
        np.random.set_state(outer)
