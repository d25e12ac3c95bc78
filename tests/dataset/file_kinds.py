"""Every kind of data file that is read here: how to make a small sound one, and what loads it. For tests by mutation.

`KINDS` is a list of (name, make, load). `make(folder)` writes a sound file or folder of files below an existing folder
and returns its path; `load(path)` returns arrays by name, or raises DatasetError.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from kitchen_data import write_arrays, write_log
from robomimic_data import write_demonstrations

from diffusion_policy.dataset.image_cache import cached_images
from diffusion_policy.dataset.kitchen_files import initial_states, read_arrays
from diffusion_policy.dataset.mjl import read_mjl
from diffusion_policy.dataset.numpy_files import read_npy, read_npz
from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim
from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.dataset.stored_demos import read_replay_buffer, write_replay_buffer
from diffusion_policy.env_runner.robomimic_starts import initial_state

Arrays = dict[str, np.ndarray]
ENDS = np.array([7, 12, 20])
ZARR_3 = not zarr.__version__.startswith("2.")


def pusht_arrays(rows: int = 20) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "keypoint": rng.uniform(0, 512, (rows, 9, 2)).astype(np.float32),
        "state": rng.uniform(0, 512, (rows, 5)).astype(np.float32),
        "action": rng.uniform(0, 512, (rows, 2)).astype(np.float32),
        "img": rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.float32),
    }


def write_zarr(
    path: Path, arrays: Arrays | None = None, ends: np.ndarray = ENDS, chunk: int = 8, version: int = 2, **options
) -> Path:
    """A replay buffer in a folder; `options` are of `zarr.create`."""
    arrays = pusht_arrays(int(ends[-1])) if arrays is None else arrays
    form = {"zarr_format": version} if ZARR_3 else {}
    root = zarr.open_group(str(path), mode="w", **form)
    for group in ("data", "meta"):
        root.require_group(group)
    for name, values in [*((f"data/{name}", values) for name, values in arrays.items()), ("meta/episode_ends", ends)]:
        array = zarr.create(
            store=str(path),
            path=name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(chunk, *values.shape[1:]),
            overwrite=True,
            **form,
            **options,
        )
        array[...] = values
    return path


def zipped(folder: Path) -> Path:
    """<folder>.zip of a zarr group, with nothing above it."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                archive.write(item, item.relative_to(folder))
    return path


def _read_zarr(path: Path) -> Arrays:
    buffer = ReplayBuffer.from_zarr(path, ("keypoint", "state", "action", "img"), image_keys=("img",))
    return {**buffer.data, "ends": buffer.episode_ends}


def _train_pusht(path: Path) -> Arrays:
    return {name: values.numpy() for name, values in load_pusht_lowdim(path, Windows(4))[0].fields.items()}


def _write_buffer(folder: Path) -> Path:
    episode = pusht_arrays(9)
    write_replay_buffer(folder / "demos.zarr", [episode, episode], {"seeds": [1, 2]})
    return folder / "demos.zarr"


def _read_buffer(path: Path) -> Arrays:
    buffer = read_replay_buffer(path)
    return {**buffer.data, "ends": buffer.episode_ends}


def _write_hdf5(folder: Path) -> Path:
    write_demonstrations(folder / "low_dim_abs.hdf5", lengths=(8, 9))
    return folder / "low_dim_abs.hdf5"


def _read_hdf5(path: Path) -> Arrays:
    train, _ = load_robomimic_lowdim(path, "can", Windows(4))
    return {**{name: values.numpy() for name, values in train.fields.items()}, "start": initial_state(path, 0)}


def _write_mjl(folder: Path) -> Path:
    write_log(folder / "log.mjl", 90)
    return folder / "log.mjl"


def _write_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(60, dtype=np.float64).reshape(3, 20))
    return folder / "a.npy"


def _write_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", action=np.arange(60.0).reshape(3, 20), done=np.zeros(3, bool))
    return folder / "a.npz"


def _write_kitchen(folder: Path) -> Path:
    write_arrays(folder / "kitchen", (5, 8, 6))
    return folder / "kitchen"


def _read_kitchen(path: Path) -> Arrays:
    qpos, qvel = initial_states(path)
    episodes = read_arrays(path)
    return {
        "qpos": qpos,
        "qvel": qvel,
        **{f"obs{i}": obs for i, (obs, _) in enumerate(episodes)},
        **{f"action{i}": action for i, (_, action) in enumerate(episodes)},
    }


def _images(path: Path) -> Arrays:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cached_images(
            path,
            {"name": "x"},
            {"front": (4, 5, 3)},
            (3, 4),
            lambda episode, name: np.full((3 + episode, 4, 5, 3), 7 * episode + 1, np.uint8),
        )


def _write_cache(folder: Path) -> Path:
    _images(folder / "c")
    return folder / "c"


KINDS: list[tuple[str, Callable[[Path], Path], Callable[[Path], Arrays]]] = [
    ("zarr folder", lambda folder: write_zarr(folder / "a.zarr"), _read_zarr),
    ("zarr zip", lambda folder: zipped(write_zarr(folder / "a.zarr")), _read_zarr),
    ("push-t zarr", lambda folder: write_zarr(folder / "a.zarr"), _train_pusht),
    ("scripted demonstrations", _write_buffer, _read_buffer),
    ("hdf5", _write_hdf5, _read_hdf5),
    ("mjl", _write_mjl, lambda path: vars(read_mjl(path))),
    ("npy", _write_npy, lambda path: {"a": read_npy(path)}),
    ("npz", _write_npz, read_npz),
    ("kitchen arrays", _write_kitchen, _read_kitchen),
    ("image cache", _write_cache, _images),
]
if ZARR_3:
    KINDS.insert(1, ("zarr 3 folder", lambda folder: write_zarr(folder / "a.zarr", version=3), _read_zarr))
