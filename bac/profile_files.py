"""The two files of a stored profile. Nothing is allocated for an array before its size is known to be as described."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bac import strict_json
from bac.blocks import Block, blocks_of, described_blocks
from bac.files import atomic_path, open_limited, read_limited, write_atomic
from bac.profile_info import MAX_NUMBERS, ProfileError, ProfileInfo, check_blocks
from bac.schedule_checks import MAX_BLOCKS
from bac.similarity import METRICS

Made = TypeVar("Made")
Matrices = dict[str, dict[str, np.ndarray]]  # metric -> block -> [K, K]

INFO, ARRAYS = "profile.json", "profile.npz"
DIGEST = "npz_sha256"  # ties the two files together; absent in older profiles
BLOCKS = "blocks"  # what the names of `bac.blocks.Block`s do not say; absent where the names say all
MAX_INFO_BYTES = 2**20
MAX_ENTRIES = len(METRICS) * MAX_BLOCKS
MAX_DIRECTORY_BYTES = 2 * 2**20
NPY_OVERHEAD = 1024  # bytes of an .npy header, at most
ADVICE = "restore the file, or profile again with overwrite=true"


def save(info: ProfileInfo, matrices: Matrices, folder: Path) -> None:
    """See `Profile.save`."""
    arrays: dict[str, Any] = {  # Any: numpy's type stub takes a name for its option
        f"{metric}|{block}": np.ascontiguousarray(matrix, np.float32)
        for metric, blocks in matrices.items()
        for block, matrix in blocks.items()
    }
    text = info.to_dict()
    listed = described_blocks(tuple(next(iter(matrices.values()))))
    if listed is not None:
        text[BLOCKS] = listed
    with atomic_path(folder / ARRAYS) as part:
        with open(part, "xb") as file:
            np.savez_compressed(file, **arrays)
        with open(part, "rb") as file:
            text[DIGEST] = _digest(file)
        (folder / INFO).unlink(missing_ok=True)
    write_atomic(folder / INFO, (json.dumps(text, indent=2) + "\n").encode("utf-8"))


def read_info(folder: Path) -> ProfileInfo | None:
    """See `Profile.read_info`."""
    described = _read(folder)
    return None if described is None else described[0]


def load(folder: Path, make: Callable[[ProfileInfo, Matrices], Made]) -> Made:
    """See `Profile.load`; `make` builds the profile and checks it."""
    described = _read(folder)
    if described is None:
        raise FileNotFoundError(f"no profile in {folder}: profile the checkpoint first")
    info, digest, blocks = described
    path = folder / ARRAYS
    try:
        with open_limited(path, 4 * MAX_NUMBERS + 2 * NPY_OVERHEAD * MAX_ENTRIES) as (file, size):
            if digest is not None and _digest(file) != digest:
                raise ProfileError(f"its content is not the one that {INFO} describes")
            _check_end(file, size)
            return make(info, _matrices(file, info.steps, blocks))
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}; {ADVICE}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        ValueError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ProfileError(f"{path} is damaged ({strict_json.short_repr(str(error), 200)}); {ADVICE}") from error


def _read(folder: Path) -> tuple[ProfileInfo, str | None, tuple[Block, ...]] | None:
    path = folder / INFO
    try:
        values = strict_json.loads(read_limited(path, MAX_INFO_BYTES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ProfileError(f"{path} is damaged ({error}); {ADVICE}") from error
    try:
        digest = values.pop(DIGEST, None) if isinstance(values, dict) else None
        if digest is not None and not isinstance(digest, str):
            raise ProfileError(f"{DIGEST} must hold text")
        blocks = blocks_of(values.pop(BLOCKS)) if isinstance(values, dict) and BLOCKS in values else ()
        info = ProfileInfo.from_dict(values)
    except ValueError as error:
        raise ProfileError(f"{path}: {error}; {ADVICE}") from error
    if not (folder / ARRAYS).exists():
        raise ProfileError(f"{path} has no {ARRAYS} beside it; {ADVICE}")
    return info, digest, blocks


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def _check_end(file: BinaryIO, size: int) -> None:
    """The directory of a zip file is read as a whole and at the size the file claims: so that is looked at first."""
    end = 22
    file.seek(max(0, size - end - 20))
    tail = file.read(end + 20)
    record = tail[-end:]
    if size < end or not record.startswith(b"PK\x05\x06") or record[-2:] != b"\0\0" or tail.startswith(b"PK\x06\x07"):
        raise ProfileError("not a complete .npz file")
    entries, directory = int.from_bytes(record[10:12], "little"), int.from_bytes(record[12:16], "little")
    if entries > MAX_ENTRIES or directory > MAX_DIRECTORY_BYTES:
        raise ProfileError(f"{entries} arrays in a directory of {directory:,} bytes, which no profile has")


def _matrices(file: BinaryIO, steps: int, blocks: tuple[Block, ...]) -> Matrices:
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        known: dict[str, str] = {str(block): block for block in blocks}
        names = [(metric, known.get(block, block)) for metric, block in map(_name, members)]
        if twice := strict_json.repeated(["|".join(name) for name in names]):
            raise ProfileError(f"these arrays occur more than once: {strict_json.some(twice)}")
        check_blocks(tuple(dict.fromkeys(block for _, block in names)))
        if steps * steps * len(members) > MAX_NUMBERS:
            raise ProfileError(
                f"{len(members)} matrices of {steps} steps are more than a profile holds ({MAX_NUMBERS:,} numbers)"
            )
        for member in members:
            if member.header_offset < 0:
                raise ProfileError("a damaged directory of arrays")
            if member.file_size > 8 * steps * steps + NPY_OVERHEAD:
                raise ProfileError(
                    f"{strict_json.short_repr(member.filename)} claims {member.file_size:,} bytes, "
                    f"too many for {steps} steps"
                )
        matrices: dict[str, dict[str, np.ndarray]] = {}
        for member, (metric, block) in zip(members, names):
            matrices.setdefault(metric, {})[block] = _matrix(archive, member, steps)
    return matrices


def _name(member: zipfile.ZipInfo) -> tuple[str, str]:
    metric, separator, block = member.filename.removesuffix(".npy").partition("|")
    if metric not in METRICS or not separator or not member.filename.endswith(".npy"):
        raise ProfileError(f"{strict_json.short_repr(member.filename)} is no matrix of a profile (metric|block)")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 0x1:
        raise ProfileError(f"{strict_json.short_repr(member.filename)} is packed in a way that a profile is not")
    return metric, block


def _matrix(archive: zipfile.ZipFile, member: zipfile.ZipInfo, steps: int) -> np.ndarray:
    """One array as float64 [steps, steps]. Its header is matched, not evaluated."""
    with archive.open(member) as stream:
        raw = stream.read(member.file_size + 1)  # reading past the end compares the checksum
    header = re.match(
        rb"\x93NUMPY\x01\x00(..)\{'descr': '<f([48])', 'fortran_order': (?:True|False), "
        rb"'shape': \((\d{1,6}), (\d{1,6})\), \} *\n",
        raw[:NPY_OVERHEAD],
        re.DOTALL,
    )
    if header is None or len(raw) != member.file_size:
        raise ProfileError(f"{strict_json.short_repr(member.filename)} is no matrix of numbers")
    length, width = 10 + int.from_bytes(header[1], "little"), int(header[2])
    if (
        (int(header[3]), int(header[4])) != (steps, steps)
        or header.end() != length
        or len(raw) != length + width * steps * steps
    ):
        raise ProfileError(f"{strict_json.short_repr(member.filename)} must be [{steps}, {steps}]")
    # a matrix that is stored by columns is its own transpose
    with np.errstate(invalid="ignore"):  # NaN is refused by the profile
        return np.frombuffer(raw, f"<f{width}", offset=length).reshape(steps, steps).astype(np.float64)
