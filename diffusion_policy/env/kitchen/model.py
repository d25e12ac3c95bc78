"""The kitchen's MuJoCo model, from the files that the package gymnasium-robotics installs."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import import_mujoco

MODEL_FILE = "envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"
PEDESTAL_RADIUS = 0.12  # m


def model_path() -> Path:
    """The model's XML file. Found without importing the package, which would register its own environments."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    if spec is None:
        raise MissingExtraError(
            "the kitchen's model files come with gymnasium-robotics. "
            "Install it with: pip install 'bac-workbench[kitchen]'"
        )
    path = Path(spec.submodule_search_locations[0], MODEL_FILE)
    if not path.exists():
        raise MissingExtraError(
            f"{path} is missing: this gymnasium-robotics has other files than the pinned version. "
            "Install that one with: pip install 'bac-workbench[kitchen]'"
        )
    return path


@lru_cache(maxsize=1)
def load_model():
    """The compiled `mujoco.MjModel`, shared by the environments of a process, which do not change it.

    The arm's pedestal does not collide, as in the benchmark, whose model is otherwise the same.
    """
    mujoco = import_mujoco("kitchen")
    model = mujoco.MjModel.from_xml_path(str(model_path()))
    pedestal = pedestal_geom(model)
    model.geom_contype[pedestal] = 0
    model.geom_conaffinity[pedestal] = 0
    return model


def pedestal_geom(model) -> int:
    """Index of the cylinder under the arm: nameless, the first geom of the arm's mount."""
    mujoco = import_mujoco("kitchen")
    mount = model.body("panda0_link0").parentid[0]
    geom = int(model.body_geomadr[mount])
    if model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_CYLINDER or model.geom_size[geom, 0] != PEDESTAL_RADIUS:
        raise RuntimeError(f"the first geom of the arm's mount in {model_path()} is not the expected pedestal")
    return geom
