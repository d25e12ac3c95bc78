"""Readers of data sets, as the product calls them, and sound files for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stress import samples


def _windows() -> Any:
    from diffusion_policy.dataset.sequence_dataset import Windows

    return Windows(2)


def _cut(load: Callable[..., Any]) -> Callable[[Path], Any]:
    """Data of which too little is left for one window are refused in the words of `NO_WINDOW`."""

    def cut(path: Path) -> Any:
        from diffusion_policy.dataset.replay_buffer import DatasetError
        from diffusion_policy.dataset.sequence_dataset import NO_WINDOW

        try:
            return load(path)
        except ValueError as error:
            if str(error) != NO_WINDOW or isinstance(error, DatasetError):
                raise
            raise DatasetError(NO_WINDOW) from error

    return cut


@_cut
def read_pusht(path: Path) -> Any:
    from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim

    return load_pusht_lowdim(path, _windows())


def read_zarr(path: Path) -> Any:
    from diffusion_policy.dataset.replay_buffer import ReplayBuffer

    return ReplayBuffer.from_zarr(path, ("keypoint", "state", "action", "img"), image_keys=("img",))


@_cut
def read_block_pushing(path: Path) -> Any:
    from diffusion_policy.dataset.block_pushing_dataset import load_block_pushing

    return load_block_pushing(path, _windows())


@_cut
def read_kitchen_scripted(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_scripted

    return load_kitchen_scripted(path, _windows())


@_cut
def read_kitchen_logs(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_logs

    return load_kitchen_logs(path.parent, _windows())


@_cut
def read_kitchen_arrays(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_npy
    from diffusion_policy.dataset.kitchen_files import initial_states

    return load_kitchen_npy(path, _windows()), initial_states(path)


@_cut
def read_robomimic(path: Path) -> Any:
    from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
    from diffusion_policy.env_runner.robomimic_starts import initial_state

    return load_robomimic_lowdim(path, "can", _windows()), initial_state(path, 0)


def read_own_demonstrations(path: Path) -> Any:
    from diffusion_policy.dataset.stored_demos import read_replay_buffer

    return read_replay_buffer(path)


def read_array(path: Path) -> Any:
    from diffusion_policy.dataset.numpy_files import read_npy

    return read_npy(path)


def read_arrays_of_one_file(path: Path) -> Any:
    from diffusion_policy.dataset.numpy_files import read_npz

    return read_npz(path)


def read_image_cache(path: Path) -> Any:
    from diffusion_policy.dataset.image_cache import cached_images

    images = cached_images(
        path,
        {"name": "x"},
        {"front": (4, 5, 3)},
        (3, 4),
        lambda episode, name: np.full((3 + episode, 4, 5, 3), 7 * episode + 1, np.uint8),
    )
    if images["front"].shape != (7, 4, 5, 3) or sorted(set(images["front"].reshape(-1).tolist())) != [1, 8]:
        raise AssertionError("a damaged cache of images was taken for sound")
    return images


@_cut
def unpack_archive(path: Path) -> Any:
    from bac_workbench.downloads.sources import unpack

    target = path.parent / "unpacked"
    try:
        unpack(path, "pusht", target)
        return read_pusht(target / "demos.zarr")
    finally:
        shutil.rmtree(target, ignore_errors=True)


def write_zarr(version: int, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from file_kinds import pusht_arrays, write_zarr

        return write_zarr(folder / "a.zarr", {**pusht_arrays(20)}, version=version, **options)

    return write


def write_zarr_zip(folder: Path) -> Path:
    from file_kinds import write_zarr

    tree = write_zarr(folder / "a.zarr")
    samples.zipped(tree, folder / "a.zarr.zip")
    shutil.rmtree(tree)
    return folder / "a.zarr.zip"


def write_hdf5(folder: Path) -> Path:
    from robomimic_data import write_demonstrations

    write_demonstrations(folder / "low_dim_abs.hdf5", lengths=(8, 9))
    return folder / "low_dim_abs.hdf5"


def write_log(folder: Path) -> Path:
    from kitchen_data import write_log

    (folder / "logs").mkdir()
    write_log(folder / "logs" / "log.mjl", 90)
    return folder / "logs" / "log.mjl"


def write_kitchen(folder: Path) -> Path:
    from kitchen_data import write_arrays

    write_arrays(folder / "kitchen", (5, 8, 6))
    return folder / "kitchen"


def write_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(60, dtype=np.float64).reshape(3, 20))
    return folder / "a.npy"


def write_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", action=np.arange(60.0).reshape(3, 20), done=np.zeros(3, bool))
    return folder / "a.npz"


def write_cache(folder: Path) -> Path:
    read_image_cache(folder / "c")
    return folder / "c"


def write_buffer(**shapes: tuple[int, ...]) -> Callable[[Path], Path]:
    return lambda folder: samples.replay_buffer(folder, shapes)
