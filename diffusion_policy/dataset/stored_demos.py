"""Demonstrations as a zarr replay buffer that tells how it was made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import folder_to_disk, remove_leftover_folders, temporary_name
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.zarr_reader import ZarrFile

CHUNK_BYTES = 2**22  # of images, before they are packed
EARLIER_NAMES = {
    "excursion_rate": "perturbation_rate"
}  # of a demonstrator's settings, in demonstrations that are stored


def write_replay_buffer(
    path: str | Path, episodes: Sequence[Mapping[str, np.ndarray]], settings: Mapping[str, Any]
) -> None:
    """Lays `episodes` (arrays [T, ...] by name, T differs) end to end in the zarr folder `path`, which must not exist.

    It appears complete or not at all. Storage format 2, which every zarr release reads. `settings` become attributes.
    """
    import zarr

    path = Path(path)
    remove_leftover_folders(path)
    temporary = temporary_name(path)
    format_2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
    try:
        with _all_chunks(zarr):
            root = zarr.open_group(str(temporary), mode="w", **format_2)
            data, meta = root.require_group("data"), root.require_group("meta")
            for name in episodes[0]:
                _store(data, name, np.concatenate([episode[name] for episode in episodes]))
            lengths = [len(next(iter(episode.values()))) for episode in episodes]
            meta["episode_ends"] = np.cumsum(lengths, dtype=np.int64)
            root.attrs.update(dict(settings))
        folder_to_disk(temporary)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _all_chunks(zarr: Any) -> AbstractContextManager:
    """Chunks of zeros are written as well, so that an absent one means that something was lost. zarr 2 always does
    so."""
    return nullcontext() if zarr.__version__.startswith("2.") else zarr.config.set({"array.write_empty_chunks": True})


def _store(group: Any, name: str, values: np.ndarray) -> None:
    if values.ndim < 3:
        group[name] = values
        return
    # Images whole and several in a piece: zarr would cut them up, which takes three times as long to read.
    rows = min(len(values), max(1, CHUNK_BYTES // values[0].nbytes))
    create = group.create_array if hasattr(group, "create_array") else group.create_dataset
    create(name, data=values, chunks=(rows, *values.shape[1:]))


def read_replay_buffer(path: str | Path) -> ReplayBuffer:
    """All arrays that `write_replay_buffer` stored."""
    names = _open(path).array_names("data")
    return ReplayBuffer.from_zarr(path, names, any_number=names)


def stored_settings(path: str | Path) -> dict[str, Any]:
    """The `settings` that `write_replay_buffer` stored; empty for a replay buffer from elsewhere."""
    return with_present_names(_open(path).attributes)


def with_present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings in which those of the demonstrator are called as they are now, also if they were stored
    earlier."""
    settings = dict(settings)
    if isinstance(settings.get("demonstrator"), Mapping):
        settings["demonstrator"] = {
            EARLIER_NAMES.get(name, name): value for name, value in settings["demonstrator"].items()
        }
    return settings


def _open(path: str | Path) -> ZarrFile:
    try:
        return ZarrFile(path)
    except DatasetError as error:
        raise DatasetError(f"{path} is not a replay buffer ({error}): move it away or use another output") from error
