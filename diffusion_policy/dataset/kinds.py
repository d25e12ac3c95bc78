"""What lies at a path where a zarr data set is expected, so that errors say what is there."""

from __future__ import annotations

import zipfile
from pathlib import Path

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.zarr_store import ROOT_FILES

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LEROBOT = "meta/info.json"


def require_zarr(path: str | Path, hint: str = "") -> None:
    """Raises a DatasetError that says what is at `path`, unless it may be a zarr group or a zip archive of one.

    Args:
        hint: tells how to get a missing data set.
    """
    path = Path(path)
    try:
        problem = _other_than_zarr(path)
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error})") from error
    if problem:
        raise DatasetError(f"{problem} {hint}".strip())


def require_hdf5(path: str | Path, advice: str = "") -> None:
    """Raises a DatasetError that says what is at `path`, unless it is a file that may be HDF5.

    Args:
        advice: tells how to get a missing file.
    """
    path = Path(path)
    try:
        if not path.exists():
            problem = f"no data file at {path}: nothing is there."
        elif path.is_dir():
            zarr = any((path / name).exists() for name in ROOT_FILES)
            problem = f"{path} is a {'zarr data set' if zarr else 'folder'} and not an HDF5 file."
        elif not path.is_file():
            problem = f"{path} is no plain file."
        elif zipfile.is_zipfile(path):
            problem = f"{path} is a zip archive and not an HDF5 file: unpack it, and name the file in it."
        else:
            return
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error})") from error
    raise DatasetError(f"{problem} {advice}".strip())


def _other_than_zarr(path: Path) -> str | None:
    if not path.exists():
        beside = (
            [
                other
                for other in (path.with_name(f"{path.name}.zip"), path.with_name(path.name.removesuffix(".zip")))
                if other != path and other.exists()
            ]
            if path.name
            else []
        )
        more = f" There is {beside[0]}, which can be read, too: name that." if beside else ""
        return f"no data set at {path}: nothing is there.{more}"
    if path.is_dir():
        return _other_folder(path)
    if not path.is_file():
        return f"{path} is neither a folder nor a file."
    with open(path, "rb") as file:
        start = file.read(8)
    if start == HDF5_MAGIC:
        return (
            f"{path} is an HDF5 file and not a zarr data set: the tasks of robomimic read such files "
            "(task.dataset.dataset_path), this one does not."
        )
    if not start:
        return f"{path} is an empty file and not a zarr data set."
    if not zipfile.is_zipfile(path):
        what = "a zip archive that is cut short" if start.startswith(b"PK") else "a file of another kind"
        return f"{path} is {what} and not a zarr data set (a folder, or a zip archive of one): get it again."
    return None


def _other_folder(path: Path) -> str | None:
    if any((path / name).exists() for name in ROOT_FILES):
        return None
    if (path / LEROBOT).is_file():
        return (
            f"{path} is a LeRobot data set and not a zarr data set: name it with dataset=lerobot dataset.path={path}."
        )
    if (path / ".zarray").exists():
        return f"{path} is a single zarr array and not a readable replay buffer: name the group in which it lies."
    inside = sorted(
        child for child in path.iterdir() if child.is_dir() and any((child / name).exists() for name in ROOT_FILES)
    )
    more = f" Did you mean {inside[0]}?" if inside else ""
    return f"{path} is a folder, but not a readable replay buffer: it has no .zgroup or zarr.json.{more}"
