"""Which kind of recording lies at a path."""

from __future__ import annotations

from pathlib import Path

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.kinds import HDF5_MAGIC, LEROBOT
from diffusion_policy.dataset.recordings.contract import Recording
from diffusion_policy.dataset.recordings.hdf5 import Hdf5Recording
from diffusion_policy.dataset.recordings.lerobot import LeRobotRecording
from diffusion_policy.dataset.recordings.npz import NpzRecording
from diffusion_policy.dataset.recordings.zarr import ZarrRecording

PREFIX = "lerobot:"
FORMS = "an .hdf5 file, a .zarr folder, lerobot:<folder>, or an .npz file of windows"


def open_recording(text: str | Path) -> Recording:
    """The recording that `text` names: a path, or lerobot:<folder>.

    Raises:
        DatasetError: nothing is there, or it is of no kind that is read; the message says what is there instead.
    """
    text = str(text)
    if text.startswith(PREFIX):
        return LeRobotRecording(Path(text.removeprefix(PREFIX)).expanduser())
    path = Path(text).expanduser()
    if not path.exists():
        raise DatasetError(f"there is no recording at {path}: give {FORMS}")
    if path.is_dir():
        return LeRobotRecording(path) if (path / LEROBOT).is_file() else ZarrRecording(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(HDF5_MAGIC))
    except OSError as error:
        raise DatasetError(f"cannot read {path} ({error})") from error
    if start == HDF5_MAGIC or path.suffix in (".hdf5", ".h5"):
        return Hdf5Recording(path)
    if path.suffix == ".npz":
        return NpzRecording(path)
    if start.startswith(b"PK"):
        return ZarrRecording(path)
    raise DatasetError(f"{path} is no recording that is read here: give {FORMS}")
