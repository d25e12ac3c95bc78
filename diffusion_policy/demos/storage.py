"""Demonstrations as a zarr replay buffer that tells how it was made."""
from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import folder_to_disk, remove_leftover_folders, temporary_name
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer

CHUNK_BYTES = 2 ** 22       # of images, before they are packed


def write_replay_buffer(path: str | Path, episodes: Sequence[Mapping[str, np.ndarray]], settings: Mapping[str, Any]) -> None:
    """Lays `episodes` (arrays [T, ...] by name, T differs) end to end in the zarr folder `path`, which must not exist.

    It appears complete or not at all. Storage format 2, which every zarr release reads. `settings` become attributes.
    """
    import zarr

    path = Path(path)
    remove_leftover_folders(path)
    temporary = temporary_name(path)
    format_2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
    try:
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
    return ReplayBuffer.from_zarr(path, sorted(_open(path)["data"].array_keys()))


def stored_settings(path: str | Path) -> dict[str, Any]:
    """The `settings` that `write_replay_buffer` stored; empty for a replay buffer from elsewhere."""
    return dict(_open(path).attrs)


def _open(path: str | Path):
    import zarr

    try:
        return zarr.open_group(str(path), mode="r")
    except (KeyError, ValueError, OSError) as error:
        raise DatasetError(f"{path} is not a replay buffer ({error}): move it away or use another output") from error
