"""The human Franka Kitchen demonstrations (Gupta et al. 2019) as the original project publishes them: logs and
arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.mjl import read_mjl
from diffusion_policy.dataset.numbers import require_finite
from diffusion_policy.dataset.numpy_files import read_npy
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.kitchen.definition import ACTION_DIM, N_OBJECT, N_QPOS, N_ROBOT, OBS_DIM

LOGS_HINT = "Get the human demonstrations with: bac data download task=kitchen_lowdim_abs"
ARRAYS_HINT = "Get the human demonstrations with: bac data download task=kitchen_lowdim"

# A copy of this log is cut short in the published archive. It counts where it can be read; any other log must be
# readable.
DAMAGED_AS_PUBLISHED = "kitchen_playdata_2019_07_11_13_34_20"
# The arrays of the published archive. They were made from its logs, so that it has at least as many of these.
PUBLISHED_DEMONSTRATIONS, PUBLISHED_LONGEST = 566, 409

Episode = tuple[np.ndarray, np.ndarray]  # joint positions [T, 30] and actions [T, 9], float32


def read_logs(dataset_dir: str | Path) -> list[Episode]:
    """Different demonstrations among the `*.mjl` logs below a folder, in the order of their paths.

    Raises:
        DatasetError: there is none, or one is damaged (see `DAMAGED_AS_PUBLISHED`) or of another robot.
    """
    folder = Path(dataset_dir)
    episodes: dict[bytes, Episode] = {}
    for path in sorted(folder.rglob("*.mjl")):
        try:
            log = read_mjl(path)
        except DatasetError:
            if path.name.startswith(DAMAGED_AS_PUBLISHED):
                continue
            raise
        if log.qpos.shape[1] < N_QPOS or log.ctrl.shape[1] != ACTION_DIM:
            raise DatasetError(
                f"{path} logs {log.qpos.shape[1]} joint positions and {log.ctrl.shape[1]} actuators instead of at "
                f"least {N_QPOS} and {ACTION_DIM}: it is not a log of Kitchen, move it out of {folder}"
            )
        positions = np.concatenate([log.qpos[:, :N_ROBOT], log.qpos[:, -N_OBJECT:]], axis=1)
        episodes.setdefault(positions.tobytes() + log.ctrl.tobytes(), (positions, log.ctrl))
    if not episodes:
        raise DatasetError(f"no readable *.mjl log in {folder}. {LOGS_HINT}")
    return list(episodes.values())


def read_arrays(dataset_dir: str | Path) -> list[Episode]:
    """Demonstrations of three arrays, in which time is the first axis and the demonstration the second:
    `observations_seq.npy` [T, E, 60], `actions_seq.npy` [T, E, 9] and `existence_mask.npy` [T, E], which is 1 for the
    steps that demonstration e has and 0 after its end.

    (The loader of the original project takes the first axis for the demonstration, so that its windows mix
    demonstrations.)

    Raises:
        DatasetError: a file is missing, or the shapes or the mask do not fit each other.
    """
    folder = Path(dataset_dir)
    obs, action = _read_npy(folder / "observations_seq.npy", 3), _read_npy(folder / "actions_seq.npy", 3)
    mask = _read_npy(folder / "existence_mask.npy", 2)
    exists = mask != 0
    if obs.shape != (*exists.shape, OBS_DIM) or action.shape != (*exists.shape, ACTION_DIM):
        raise DatasetError(
            f"{folder}: observations_seq.npy {list(obs.shape)}, actions_seq.npy {list(action.shape)} and "
            f"existence_mask.npy {list(exists.shape)} are not [T, E, {OBS_DIM}], [T, E, {ACTION_DIM}] and [T, E]. "
            f"{ARRAYS_HINT}"
        )
    if not np.isin(mask, (0, 1)).all():
        raise DatasetError(f"{folder}: existence_mask.npy holds other numbers than 0 and 1. {ARRAYS_HINT}")
    if not exists[:1].all() or (exists[1:] & ~exists[:-1]).any() or exists.size == 0:
        raise DatasetError(
            f"{folder}: existence_mask.npy has demonstrations without a first step or with gaps; its first "
            f"axis must be the time. {ARRAYS_HINT}"
        )
    episodes = []
    for index, length in enumerate(exists.sum(axis=0)):
        episode = obs[:length, index, :N_QPOS].astype(np.float32), action[:length, index].astype(np.float32)
        for name, values in zip(("observations_seq.npy", "actions_seq.npy"), episode):
            require_finite(f"demonstration {index} in {folder}", name, values)
        episodes.append(episode)
    return episodes


def _read_npy(path: Path, n_dims: int) -> np.ndarray:
    values = read_npy(path, ARRAYS_HINT)
    if values.ndim != n_dims:
        raise DatasetError(f"{path} is {list(values.shape)}, not an array of numbers with {n_dims} axes. {ARRAYS_HINT}")
    return values


def initial_states(dataset_dir: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions [K, 30] and velocities [K, 29] in which the K human demonstrations start.

    Raises:
        DatasetError: `all_init_qpos.npy` or `all_init_qvel.npy` is missing or has another shape.
    """
    folder = Path(dataset_dir)
    qpos, qvel = _read_npy(folder / "all_init_qpos.npy", 2), _read_npy(folder / "all_init_qvel.npy", 2)
    for name, values in (("all_init_qpos.npy", qpos), ("all_init_qvel.npy", qvel)):
        require_finite(folder, name, values)
    if qpos.shape[1] != N_QPOS or qvel.shape != (len(qpos), N_QPOS - 1):
        raise DatasetError(
            f"{folder}: all_init_qpos.npy {list(qpos.shape)} and all_init_qvel.npy {list(qvel.shape)} are "
            f"not [K, {N_QPOS}] and [K, {N_QPOS - 1}]. {ARRAYS_HINT}"
        )
    return qpos, qvel


@dataclass(frozen=True)
class KitchenFiles:
    """The human demonstrations in a folder, all of them readable.

    Attributes:
        folder: where they lie.
        n_arrays: demonstrations in the arrays.
        n_logs: different demonstrations among the logs.
    """

    folder: Path
    n_arrays: int
    n_logs: int


def read_published(folder: str | Path) -> KitchenFiles:
    """Reads all that the original project published in `folder`: arrays, initial states, and logs at any depth.

    Raises:
        DatasetError: something is missing, unreadable or not of the published size.
    """
    folder = Path(folder)
    arrays, (qpos, _), logs = read_arrays(folder), initial_states(folder), read_logs(folder)
    longest = max(len(action) for _, action in arrays)
    published = f"{PUBLISHED_DEMONSTRATIONS} of at most {PUBLISHED_LONGEST} steps"
    if (len(arrays), longest) != (PUBLISHED_DEMONSTRATIONS, PUBLISHED_LONGEST):
        raise DatasetError(
            f"{folder} holds arrays of {len(arrays)} demonstrations of at most {longest} steps; {published} are "
            "published"
        )
    if len(qpos) != len(arrays):
        raise DatasetError(f"{folder} holds {len(qpos)} initial states for {len(arrays)} demonstrations")
    if len(logs) < len(arrays):
        raise DatasetError(f"{folder} holds only {len(logs)} different logs for {len(arrays)} demonstrations")
    return KitchenFiles(folder, len(arrays), len(logs))
