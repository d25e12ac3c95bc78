"""Public demonstration data: download that can be resumed, unpacking in one step, and a checksum of the contents."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from bac_workbench.downloads.fetch import Progress, name_in
from bac_workbench.downloads.member_source import MemberSource
from bac_workbench.downloads.sources import DataSource, FileSource, WritingError
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked_output
from diffusion_policy.dataset.kitchen_files import read_published
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.env.robomimic.definition import TASKS


class NoChecksumError(DatasetError):
    """Data that is readable, but that nothing tells to be the right one."""


class OtherDataError(DatasetError):
    """Data that is not what its checksum says."""


SITE = "https://diffusion-policy.cs.columbia.edu/data/training"  # Chi et al. 2023, the authors' site

# No checksum of this archive, nor of anything in it, is published by its authors. Both tasks use it.
KITCHEN = FileSource(
    url=f"{SITE}/kitchen.zip",
    folder="kitchen",
    keys=("*.npy", "*.mjl"),
    sha256=None,
    reader=read_published,
)
PUSHT = DataSource(
    url=f"{SITE}/pusht.zip",
    folder="pusht/pusht_cchi_v7_replay.zarr",
    keys=("keypoint", "state", "action"),
    sha256="2815f05737b83283fdd4ef3e8c703772ab00521fffcc8a079485e02ff9b655f3",
)
SOURCES = {
    "pusht_lowdim": PUSHT,
    "pusht_image": replace(
        PUSHT,
        keys=("img", "state", "action"),
        image_keys=("img",),
        sha256="c5bdadd18ee16f89b92b99b12055c23b637de4462e59be1d8b77f1eacfd1b23f",
    ),
    "kitchen_lowdim_abs": KITCHEN,
    "kitchen_lowdim": KITCHEN,
    **{
        f"{task.name}{name}_{humans}": MemberSource(
            f"{SITE}/robomimic_{archive}.zip", f"robomimic/datasets/{task.name}/{humans}/{file}_abs.hdf5"
        )
        for name, archive, file in [("", "image", "image"), ("_lowdim", "lowdim", "low_dim")]
        for task in TASKS.values()
        for humans in task.max_steps
    },
}


def known_sha256(path: str | Path, source: DataSource) -> str | None:
    """The published checksum of `source`, else the one that the first download recorded at `path`, else None.

    Raises:
        DatasetError: the record is damaged.
    """
    record = source.record(path)
    if source.sha256 is not None or not record.exists():
        return source.sha256
    try:
        recorded = json.loads(record.read_text())["sha256"]
        if len(bytes.fromhex(recorded)) != 32:
            raise ValueError("not 64 hexadecimal digits")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DatasetError(
            f"{record} is damaged ({error}): delete it, and the next download records it again"
        ) from error
    return recorded


def verify(path: str | Path, source: DataSource, sha256: str | None = None) -> Any:
    """Reads the data set at `path` completely, compares its checksum and returns its contents (see `DataSource.read`).

    Args:
        sha256: what to compare with, instead of `known_sha256`.

    Raises:
        DatasetError: it is missing, unreadable, or holds something else.
        NoChecksumError: there is no checksum to compare with.
    """
    path = Path(path)
    known = sha256 or known_sha256(path, source)
    if source.of_files and known is not None:  # before anything in them is decoded
        if not path.exists():
            raise DatasetError(f"no data set at {path}: nothing is there")
        _compare(path, source.digest(path, None), known)
        return source.read(path)
    contents = source.read(path)
    digest = source.digest(path, contents)
    if known is None:
        raise NoChecksumError(
            f"{path} is complete (content sha256 {digest}), but there is no checksum to compare it with: none is "
            f"published, and no download recorded one in {source.record(path).name}. Give one with sha256=, or record "
            "this one by leaving out verify=true"
        )
    _compare(path, digest, known)
    return contents


def _compare(path: Path, digest: str, expected: str) -> None:
    if digest != expected:
        raise OtherDataError(
            f"{path} holds other data than expected (content sha256 {digest}, expected {expected}): "
            "it is damaged or of another version"
        )


def verify_or_record(path: str | Path, source: DataSource, sha256: str | None = None) -> None:
    """`verify`. Where no checksum is published, the present one is recorded for the next time, if it is not yet."""
    path = Path(path)
    known = known_sha256(path, source)
    expected = sha256 or known
    if expected is None:
        expected = source.digest(path, source.read(path))
    else:
        verify(path, source, expected)
    if source.sha256 is None and expected != known:
        write_json(source.record(path), {"sha256": expected, "files": list(source.keys)})


def download(
    source: DataSource,
    data_dir: str | Path,
    url: str | None = None,
    on_progress: Progress | None = None,
    sha256: str | None = None,
) -> Path:
    """Fetches, unpacks and verifies `source`; returns its folder or file. Data already there is only verified.

    `sha256` is the checksum that the contents must have, instead of the published or recorded one.

    An archive already at `<data_dir>/<name in the URL>` is used instead of the network. It is removed once unpacked,
    unless it holds other data sets, too. The folder appears complete and verified, or not at all.
    """
    data_dir = Path(data_dir)
    folder = data_dir / source.folder
    if folder.exists():
        verify_or_record(folder, source, sha256)
        return folder
    with (
        locked_output(folder, f"download of {source.folder}"),
        locked_output(data_dir / name_in(url or source.url), "download"),
    ):
        return _download(source, data_dir, url, on_progress, sha256)


def _download(
    source: DataSource, data_dir: Path, url: str | None, on_progress: Progress | None, sha256: str | None
) -> Path:
    folder = data_dir / source.folder
    if folder.exists():  # another process was faster
        verify_or_record(folder, source, sha256)
        return folder
    fetched = source.fetch(data_dir, url or source.url, on_progress)
    # A fixed name, so that what a killed call left behind is cleared by the next one.
    unverified = folder.with_name(f".{folder.name}.unverified")
    _remove(unverified)
    try:
        source.unpack(fetched, unverified)
        verify_or_record(unverified, source, sha256)
        unverified.replace(folder)
    except DatasetError as error:
        raise type(error)(
            f"{error}{_advice(error, fetched, sha256)}".replace(str(unverified), f"{fetched} ({source.folder})")
        ) from error
    except OSError as error:
        raise WritingError(f"cannot unpack {fetched} to {folder} ({error})") from error
    finally:
        _remove(unverified)
    fetched.unlink()
    return folder


def _advice(error: DatasetError, fetched: Path, sha256: str | None) -> str:
    """What to do about an archive that was refused. Where the fault may be elsewhere, it is not to be thrown away."""
    if isinstance(error, OtherDataError) and sha256 is not None:
        return (
            f"\nCorrect sha256= if that is wrong. Else the archive is another one: Delete {fetched} and run the same "
            "command again, or give another url="
        )
    if isinstance(error, WritingError):
        return ""
    return f"\nDelete {fetched} and run the same command again"


def _remove(path: Path) -> None:
    path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
