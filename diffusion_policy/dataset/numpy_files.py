"""Reading .npy and .npz files of which nothing is known: no pickle is read, and no more memory is set aside than is
stored."""

from __future__ import annotations

import io
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.limits import MAX_DIMENSIONS, Budget, n_bytes

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}  # of the length of the header, by version
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit, which it checks once they are read
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What NumPy, zipfile and zlib raise of damaged files.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npy(path: str | Path, advice: str = "") -> np.ndarray:
    """The array of numbers (bool, integers, floats) in an .npy file.

    Raises:
        DatasetError: it is missing, damaged, of another kind, or claims more numbers than it holds; `advice` ends the
            message.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file" if not path.exists() else "no plain file")
        with open(path, "rb") as file:
            return _array(file, path.stat().st_size)
    except DAMAGED as error:
        raise DatasetError(f"cannot read {path} ({_reason(error)}). {advice}".strip()) from error


def read_npz(path: str | Path, advice: str = "") -> dict[str, np.ndarray]:
    """The arrays of numbers in an .npz file, by name, packed or not.

    Raises:
        DatasetError: as `read_npy`; or the arrays claim more than so many packed bytes can hold, see `limits`.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file" if not path.exists() else "no plain file")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            budget = Budget(path.stat().st_size)
            for info in members:
                if info.compress_type not in ZIP_METHODS or info.flag_bits & 1 or not info.filename.endswith(".npy"):
                    raise ValueError(f"{info.filename!r} is not an array as NumPy stores it")
                budget.add(info.filename, info.file_size)
            if len({info.filename for info in members}) < len(members):
                raise ValueError("it holds two arrays of one name")
            # A member never gives more bytes than its entry says, and reading to its end checks the CRC.
            return {
                info.filename.removesuffix(".npy"): _array(io.BytesIO(archive.read(info)), info.file_size)
                for info in members
            }
    except (*DAMAGED, DatasetError) as error:
        raise DatasetError(f"cannot read {path} ({_reason(error)}). {advice}".strip()) from error


def _array(file: BinaryIO, size: int) -> np.ndarray:
    """The array in `size` bytes of .npy."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format is not one for numbers")
    start, width = file.tell(), LENGTH_BYTES[version]
    length = int.from_bytes(file.read(width), "little")
    if length > min(LONGEST_HEADER, size):  # NumPy would set aside what it claims
        raise ValueError(f"its header claims {length:,} bytes, and at most {LONGEST_HEADER:,} are read")
    file.seek(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a header that Python 2 wrote
        shape, fortran_order, dtype = HEADERS[version](file)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.shape:
        raise ValueError(f"it holds {dtype}, not plain numbers")
    if len(shape) > MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise ValueError(f"it claims the shape {str(shape)[:80]}")
    claimed, there = n_bytes(shape, dtype.itemsize), size - file.tell()
    if claimed != there:
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, and there are {there:,}")
    values = np.frombuffer(file.read(claimed), dtype)
    if values.nbytes != claimed:
        raise EOFError("it is cut short")
    return values.reshape(shape, order="F" if fortran_order else "C").astype(dtype.newbyteorder("="))


def _reason(error: BaseException) -> str:
    return str(error)[:300] or type(error).__name__
