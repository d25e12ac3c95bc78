"""Finished demonstrations on the disk while others are still recorded, so that an interrupted call goes on with
them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import atomic_path, is_temporary, write_json
from diffusion_policy.dataset.numpy_files import read_npz
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.stored_demos import with_present_names

DESCRIPTION = "settings.json"  # in a folder of parts: what they are parts of


def remove_parts(folder: Path) -> None:
    """Removes a folder of `Parts`, and none that holds anything else."""
    if folder.is_dir() and all(_is_part(path) for path in folder.iterdir()):
        shutil.rmtree(folder)


def _is_part(path: Path) -> bool:
    return (
        path.suffix in (".npz", ".failed") and path.stem.isdecimal() or path.name == DESCRIPTION or is_temporary(path)
    )


class Parts:
    """A folder with one file per seed: `<seed>.npz`, or the empty `<seed>.failed`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder = folder
        description = folder / DESCRIPTION
        if description.exists():
            try:
                stored = json.loads(description.read_text())
            except (OSError, ValueError) as error:
                raise DatasetError(
                    f"{description} cannot be read ({error}): remove {folder}, or use another output"
                ) from error
            require_same(stored, settings, folder)
        elif folder.exists() and not all(map(is_temporary, folder.iterdir())):  # of a call that was killed at once
            raise DatasetError(
                f"{folder} is not a folder of unfinished demonstrations: move it away or use another output"
            )
        else:
            write_json(description, settings)

    def count(self) -> int:
        """Demonstrations that are finished."""
        return sum(path.suffix == ".npz" and path.stem.isdecimal() for path in self.folder.iterdir())

    def outcome(self, seed: int) -> bool | None:
        """Whether the seed's demonstration was kept; None: not recorded yet."""
        if self._path(seed, "npz").exists():
            return True
        return False if self._path(seed, "failed").exists() else None

    def save(self, seed: int, episode: Mapping[str, np.ndarray] | None) -> None:
        with atomic_path(self._path(seed, "failed" if episode is None else "npz")) as temporary:
            with open(temporary, "wb") as file:
                if episode is not None:
                    np.savez(file, **episode)

    def load(self, seed: int) -> dict[str, np.ndarray]:
        return read_npz(self._path(seed, "npz"), "Delete it and run the same command again")

    def _path(self, seed: int, suffix: str) -> Path:
        return self.folder / f"{seed:06d}.{suffix}"


def require_same(stored: Any, wanted: Mapping[str, Any], path: Path) -> None:
    stored = with_present_names(stored) if isinstance(stored, Mapping) else {}
    names = dict.fromkeys([*wanted, *(name for name in stored if name != "seeds")])
    changed = [
        f"{name} {stored.get(name)!r} there, {wanted.get(name)!r} now"
        for name in names
        if stored.get(name) != wanted.get(name)
    ]
    if changed:
        raise DatasetError(
            f"{path} holds other demonstrations ({'; '.join(changed)}): use the settings of before, remove it or use "
            "another output"
        )
