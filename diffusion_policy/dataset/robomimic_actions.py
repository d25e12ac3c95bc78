"""Relative and absolute actions of robomimic's data files: telling them apart, and the files that hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.robomimic.definition import ROBOT_ARM_DIM

ROBOMIMIC_PAGE = "https://robomimic.github.io/docs/datasets/robomimic_v0.1.html"
ABSOLUTE = "_abs"  # a data file with absolute actions is named after the one with relative actions
# Absolute actions are a few cm from where the gripper is, relative ones numbers around zero and thereby about 1 m.
NEAR_M = 0.3


def are_absolute(actions: np.ndarray, gripper_positions: np.ndarray) -> bool:
    """Whether actions [N, 7 n_arms] are poses to reach and not their changes; grippers are at [N, 3 n_arms] (m)."""
    goals = actions.reshape(len(actions), -1, ROBOT_ARM_DIM)[..., :3]
    distance = np.linalg.norm(goals - gripper_positions.reshape(len(actions), -1, 3), axis=-1)
    return bool(np.median(distance) <= NEAR_M)


def check_actions(
    path: str | Path, actions: np.ndarray, gripper_positions: np.ndarray, abs_action: bool, config: str | None
) -> None:
    """Compares the kind of the actions with the one asked for.

    Args:
        actions, gripper_positions: see `are_absolute`.

    Raises:
        DatasetError: the actions are not of the kind that is asked for.
    """
    absolute = are_absolute(actions, gripper_positions)
    if absolute and not abs_action:
        raise DatasetError(
            f"{path} holds absolute actions and abs_action is false: set task.abs_action=true, or read the "
            f"file with relative actions (task.dataset.dataset_path={delta_path(path)})"
        )
    if abs_action and not absolute:
        if Path(path) == abs_path(path):
            raise DatasetError(
                f"{path} holds relative actions, which its name denies: rename it to {delta_path(path)} and "
                f"convert it with: {conversion_command(path, config)}"
            )
        raise DatasetError(
            f"{path} holds relative actions and abs_action is true: make {abs_path(path)} with "
            f"{conversion_command(path, config)} and read that (task.dataset.dataset_path={abs_path(path)})"
        )


def delta_path(path: str | Path) -> Path:
    """image.hdf5 for image_abs.hdf5; a file without _abs in its name for itself."""
    path = Path(path)
    return path.with_name(path.stem.removesuffix(ABSOLUTE) + path.suffix)


def abs_path(path: str | Path) -> Path:
    """image_abs.hdf5 for image.hdf5 and for itself."""
    path = delta_path(path)
    return path.with_name(path.stem + ABSOLUTE + path.suffix)


def conversion_command(path: str | Path, config: str | None) -> str:
    return f"bac data convert-actions task={config or '<task>'} output={abs_path(path)}"


def source_advice(path: str | Path, config: str | None) -> str:
    """How to get the data file `path`, which is missing or damaged.

    Args:
        config: name of the task's configuration.
    """
    path = Path(path)
    if path != delta_path(path) and delta_path(path).is_file():
        return (
            f"{delta_path(path)} has the same demonstrations with relative actions, convert them with: "
            + conversion_command(path, config)
        )
    return (
        f"Get it with: bac data download task={config or '<task>'}, or put robomimic's own "
        f"{delta_path(path).name} there ({ROBOMIMIC_PAGE}). Scripted demonstrations can be made here: "
        "bac demos task=lift_scripted_demos"
    )
