"""Reads the zip files that `torch.save` writes: one pickle, and the numbers of every tensor beside it."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_budget import Budget
from diffusion_policy.common.pickle_machine import PickleMachine
from diffusion_policy.common.pickle_reader import MAX_BYTES
from diffusion_policy.common.pickle_standins import StoredTensor, printable

_MAX_DIRECTORY = 16 * 2**20  # bytes of the zip file's list of records: some 100,000 of them
_EXPANDED = 2**16  # elements of a tensor that says one number many times


def restricted_loads(data: bytes, what: str = "the pickle", budget: Budget | None = None) -> Any:
    """The object a pickle describes, made of built-in types and stand-ins; see `restricted_unpickler`.

    Args:
        budget: what is left for this and further pickles of the same file.
    Raises:
        CheckpointError: it names anything that is not accepted, is damaged, or needs more memory or time than any sound
        one.
    """
    if not isinstance(data, (bytes, bytearray)):
        raise CheckpointError(
            f"{what} is a {type(data).__name__} instead of a pickle: the file is damaged; get it again"
        )
    try:
        return PickleMachine(bytes(data), budget or Budget()).run()
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # hostile or damaged bytes can fail in any way; all of them mean the same
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{what} is damaged, or no policy checkpoint ({reason}): get the file again") from error


class _BoundedReader(io.BufferedReader):
    """A file that does not reserve memory for more than `limit` bytes because a damaged file says so."""

    limit = _MAX_DIRECTORY

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if size > self.limit:
            raise ValueError(f"a record of {size} bytes")
        return super().read(size)


class TorchArchive:
    """A `torch.save` zip file opened for reading; a context manager. Tensors are read only when asked for.

    Attributes:
        payload: what was saved, with a `StoredTensor` for every tensor.
        budget: what is left for the pickles inside the payload.
    """

    def __init__(self, path: str | Path):
        self._path, self.budget = path, Budget()
        self._storages: dict[str, bytearray] = {}
        self._file = _BoundedReader(io.FileIO(path))
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        again = "it is truncated or damaged: get it again and compare its size with the source"
        try:
            self._zip = zipfile.ZipFile(self._file)
        except OSError:
            raise
        except Exception as error:  # besides BadZipFile, a damaged directory raises decoding, value and version errors
            raise CheckpointError(f"{self._path}: {again} ({str(error)[:200]})") from error
        infos = self._zip.infolist()
        names = {info.filename for info in infos}
        size = os.fstat(self._file.fileno()).st_size
        if len(names) < len(infos) or sum(info.compress_size for info in infos) > size:
            raise CheckpointError(
                f"{self._path}: its records overlap or have one name, which torch.save does not write: get it again"
            )
        self._file.limit = size
        roots = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1 or f"{roots[0]}constants.pkl" in names:
            raise CheckpointError(
                f"{self._path} is a zip file but not one of torch.save (TorchScript is not supported)"
            )
        self._root = roots[0]
        if f"{self._root}byteorder" in names and self._read("byteorder", most=100) != sys.byteorder.encode():
            raise CheckpointError(
                f"{self._path} was written on a machine with another byte order: save it on one like this"
            )
        self.payload = restricted_loads(self._read("data.pkl", most=MAX_BYTES), str(self._path), self.budget)

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_: Any) -> None:
        self._zip.close()
        self._file.close()
        self._storages.clear()

    def _read(self, name: str, size: int | None = None, most: int | None = None) -> bytes:
        printed = printable(name)
        try:
            info = self._zip.getinfo(self._root + name)
            # torch.save never compresses; a compressed record could unfold to any size.
            if info.compress_type != zipfile.ZIP_STORED or size not in (None, info.file_size):
                raise CheckpointError(
                    f"{self._path}: its record {printed} is not what torch.save writes: get the file again"
                )
            if most is not None and info.file_size > most:
                raise CheckpointError(
                    f"{self._path}: its record {printed} has {info.file_size} bytes; "
                    f"a policy checkpoint has at most {most} there"
                )
            data = self._zip.read(info)
            if len(data) != info.file_size:
                raise ValueError("it is shorter than the file says")
            return data
        except (CheckpointError, OSError, MemoryError):
            raise
        except Exception as error:  # as above
            raise CheckpointError(
                f"{self._path}: its record {printed} is missing or damaged: get the file again ({str(error)[:200]})"
            ) from error

    def check(self, stored: StoredTensor) -> None:
        """Whether the tensor can exist: its elements lie in its storage, and that in the file.

        Raises:
            CheckpointError: they do not.
        """
        last, elements = stored.offset, 1
        for size, stride in zip(stored.size, stored.stride):
            last, elements = last + (size - 1) * stride, elements * size
        allowed = max(stored.storage_size, _EXPANDED)
        if elements and (last >= stored.storage_size or elements > allowed) or max(stored.size, default=0) > allowed:
            sizes = ", ".join(str(size)[:20] for size in stored.size[:8])
            raise CheckpointError(f"{self._path}: a tensor of shape ({sizes}) exceeds its storage: the file is damaged")

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Reads one tensor onto the CPU; tensors of one storage share its memory."""
        self.check(stored)
        size = stored.storage_size * stored.dtype.itemsize
        data = self._storages.get(stored.key)
        if data is None:
            data = self._storages[stored.key] = bytearray(self._read(f"data/{stored.key}", size))
        if len(data) != size:
            raise CheckpointError(
                f"{self._path}: two tensors of one storage say that it has different sizes: the file is damaged"
            )
        flat = torch.frombuffer(data, dtype=stored.dtype) if data else torch.empty(0, dtype=stored.dtype)
        if not torch.Size(stored.size).numel():
            return torch.empty(stored.size, dtype=stored.dtype)
        return flat.as_strided(stored.size, stored.stride, stored.offset)
