"""MUJOCO_GL and its like: what they ask for and what is there."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from diffusion_policy.env import extras, offscreen
from diffusion_policy.env.extras import MissingExtraError, import_extra
from diffusion_policy.env.offscreen import RenderingError, check_backend
from diffusion_policy.env_runner.kitchen import kitchen_environment
from diffusion_policy.env_runner.task import Task
from tests.conftest import ROOT


@pytest.fixture
def machine(monkeypatch):
    """(installed, **variables) -> a Linux machine with these OpenGL libraries and environment variables."""

    def make(installed=("egl",), **variables):
        monkeypatch.setattr(offscreen.platform, "system", lambda: "Linux")
        monkeypatch.setattr(offscreen, "_is_installed", lambda name: name in installed)
        for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    "variables, says",
    [
        ({"MUJOCO_GL": "elg"}, "MUJOCO_GL=elg names no OpenGL.*Did you mean MUJOCO_GL=egl"),
        ({"MUJOCO_GL": "opengl"}, "Use one of egl, osmesa, glfw.*unset MUJOCO_GL"),
        (
            {"MUJOCO_GL": "osmesa"},
            "asks for OSMesa, whose library libOSMesa.so.8 is not installed.*libosmesa6.*set MUJOCO_GL=egl, which is "
            "installed",
        ),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"},
            "PYOPENGL_PLATFORM=glx contradicts MUJOCO_GL=egl: unset PYOPENGL_PLATFORM",
        ),
        (
            {"MUJOCO_GL": "glfw"},
            "MUJOCO_GL=glfw draws through a window system, and there is none .DISPLAY is not set.: set MUJOCO_GL=egl",
        ),
        ({"MUJOCO_GL": "disable"}, "MUJOCO_GL=disable turns drawing off"),
    ],
)
def test_what_cannot_draw_names_the_variable_and_what_to_set(machine, variables, says):
    machine(**variables)
    with pytest.raises(RenderingError, match=says):
        check_backend(draws=True)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"MUJOCO_GL": ""},
        {"MUJOCO_GL": "egl"},
        {"MUJOCO_GL": "EGL"},
        {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"},
        {"MUJOCO_GL": "glfw", "DISPLAY": ":0"},
    ],
)
def test_what_can_draw_passes(machine, variables):
    machine(**variables)
    check_backend(draws=True)


def test_what_draws_nothing_needs_no_window_system(machine):
    for value in ("glfw", "disable"):
        machine(MUJOCO_GL=value)
        check_backend()


# Not importorskip: MuJoCo would be imported under the variables of the test, and keep to them.
has_kitchen = all(map(importlib.util.find_spec, ("mujoco", "gymnasium_robotics")))
needs_kitchen = pytest.mark.skipif(not has_kitchen, reason="needs the kitchen extra")


@needs_kitchen
def test_a_task_says_so_before_its_workers_start(machine):
    machine(MUJOCO_GL="osmesa")
    with pytest.raises(RenderingError, match="MUJOCO_GL=osmesa"):
        Task("kitchen", kitchen_environment()).vector_env(1)


@needs_kitchen
def test_the_import_itself_says_so():
    code = (
        "from diffusion_policy.env.offscreen import import_mujoco\n"
        "try: import_mujoco('kitchen')\nexcept OSError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MUJOCO_GL": "elg"}, cwd=ROOT, capture_output=True, text=True
    )
    assert "Did you mean MUJOCO_GL=egl" in result.stdout, result.stderr


def test_a_missing_system_library_is_not_a_missing_package(monkeypatch):
    def fails(name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(extras.importlib, "import_module", fails)
    with pytest.raises(
        MissingExtraError, match="system library libGL.so.1 .Debian package: libgl1.*opencv-python-headless"
    ) as error:
        import_extra("cv2", "pusht")
    assert "pip install" not in str(error.value)


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'bac-workbench\[pusht\]'"):
        import_extra("no_such_simulator", "pusht")


def test_a_package_that_is_broken_says_so(monkeypatch):
    def fails(name):
        raise ImportError(f"numpy {np.__version__} is too new for it")

    monkeypatch.setattr(extras.importlib, "import_module", fails)
    with pytest.raises(MissingExtraError, match="is installed but cannot be used"):
        import_extra("pymunk", "pusht")
