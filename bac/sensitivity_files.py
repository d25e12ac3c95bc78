"""Stored holding costs: `<name>.npz` with the numbers and `<name>.json` with what they are of."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bac import strict_json
from bac.blocks import blocks_of, described_blocks
from bac.files import read_limited, write_atomic
from bac.holding import HoldingCosts
from bac.profile_info import MAX_NUMBERS, ProfileError, ProfileInfo, check_blocks
from bac.provenance import Provenance, ScheduleError, count, integer, sequence, text

MAX_INFO_BYTES = 2**20
ADVICE = "restore both files, or remove them, after which the costs are measured anew"


@dataclass(frozen=True)
class SensitivityInfo:
    """What holding costs are of.

    Attributes:
        origin: checkpoint, sampler and states; its `noise_seeds` hold the seed of noise and directions.
        draws: directions per state.
        chunk: first executed token, and the one after the last.
    """

    origin: ProfileInfo
    draws: int
    chunk: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        return {**self.origin.to_dict(), "draws": self.draws, "chunk": list(self.chunk)}

    @classmethod
    def from_dict(cls, values: Any) -> SensitivityInfo:
        """Inverse of `to_dict`.

        Raises:
            ProfileError: a field is missing, unknown or wrong.
        """
        if not isinstance(values, Mapping) or not {"draws", "chunk"} <= set(values):
            raise ProfileError("a description of holding costs must be a JSON object with draws and chunk")
        try:
            first, stop = (integer(value, "chunk") for value in sequence(values["chunk"], "chunk"))
            draws = count(values["draws"], "draws")
        except ProfileError:
            raise
        except (ScheduleError, ValueError) as error:
            raise ProfileError(f"holding costs: {error}") from error
        rest = {name: value for name, value in values.items() if name not in ("draws", "chunk")}
        return cls(ProfileInfo.from_dict(rest), draws, (first, stop))

    @property
    def provenance(self) -> Provenance:
        """What a schedule says of the costs that it was made from; `of_schedule` reads it."""
        origin = self.origin
        return Provenance(
            method="sacs",
            checkpoint_hash=origin.checkpoint_hash,
            weights=origin.weights,
            observations=origin.observations,
            seeds=origin.noise_seeds,
            sampler=origin.sampler,
            sampler_steps=origin.steps,
            extras={"observations_from": origin.source, "draws": self.draws, "chunk": list(self.chunk)},
        )


def save(info: SensitivityInfo, costs: HoldingCosts, folder: Path, name: str) -> None:
    """Writes both files (float32), each complete or not at all, the description last."""
    data = io.BytesIO()
    arrays: dict[str, Any] = {"hold": costs.hold.astype(np.float32)}  # Any: numpy's stub takes a name for its option
    if costs.extrapolate is not None:
        arrays["extrapolate"] = costs.extrapolate.astype(np.float32)
    np.savez_compressed(data, **arrays)
    digest = hashlib.sha256(data.getvalue()).hexdigest()
    listed: list[Any] = described_blocks(costs.blocks) or list(costs.blocks)
    described = {**info.to_dict(), "blocks": listed, "npz_sha256": digest}
    (folder / f"{name}.json").unlink(missing_ok=True)
    write_atomic(folder / f"{name}.npz", data.getvalue())
    write_atomic(folder / f"{name}.json", (json.dumps(described, indent=2) + "\n").encode("utf-8"))


def read_info(folder: Path, name: str) -> SensitivityInfo | None:
    """What stored costs are of, or None if there are none.

    Raises:
        ProfileError: the description is damaged.
    """
    described = _read(folder / f"{name}.json")
    return None if described is None else described[0]


def load(folder: Path, name: str) -> tuple[SensitivityInfo, HoldingCosts]:
    """Reads what `save` wrote.

    Raises:
        FileNotFoundError: there is none.
        ProfileError: it is damaged; the message names the file.
    """
    described = _read(folder / f"{name}.json")
    if described is None:
        raise FileNotFoundError(f"no holding costs in {folder}: measure them first")
    info, blocks, digest = described
    path = folder / f"{name}.npz"
    try:
        raw = read_limited(path, 4 * MAX_NUMBERS)
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ValueError(f"its content is not the one that {name}.json describes")
        return info, _costs(raw, blocks, info.origin.steps)
    except FileNotFoundError as error:
        raise ProfileError(f"{folder / f'{name}.json'} has no {path.name} beside it; {ADVICE}") from error
    except (ValueError, EOFError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ProfileError(f"{path} is damaged ({strict_json.short_repr(str(error), 200)}); {ADVICE}") from error


def _read(path: Path) -> tuple[SensitivityInfo, tuple[str, ...], str] | None:
    try:
        values = strict_json.loads(read_limited(path, MAX_INFO_BYTES))
        if not isinstance(values, dict):
            raise ProfileError("a description of holding costs must be a JSON object")
        digest = text(values.pop("npz_sha256", None), "npz_sha256")
        listed = sequence(values.pop("blocks", None), "blocks")
        named = bool(listed) and not isinstance(listed[0], list)
        blocks = tuple(text(name, "blocks") for name in listed) if named else blocks_of(listed)
        check_blocks(blocks)
        return SensitivityInfo.from_dict(values), blocks, digest
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ProfileError(f"{path} is damaged ({error}); {ADVICE}") from error


def _costs(raw: bytes, blocks: tuple[str, ...], steps: int) -> HoldingCosts:
    """The arrays; nothing is unpacked before its size is known to be as described."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = archive.namelist()
        if names not in (["hold.npy"], ["hold.npy", "extrapolate.npy"]):
            raise ValueError(f"it holds {strict_json.short_repr(names)}")
        hold = _array(archive, "hold.npy", (len(blocks), steps, steps))
        line = None
        if len(names) > 1:
            line = _array(archive, "extrapolate.npy", (len(blocks), steps, steps, steps))
    return HoldingCosts(blocks, hold, line)


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> np.ndarray:
    size = 4 * int(np.prod(shape, dtype=object))
    if archive.getinfo(name).file_size > size + 1024:
        raise ValueError(f"{name} claims {archive.getinfo(name).file_size:,} bytes, too many for its shape {shape}")
    with archive.open(name) as stream:
        array = np.lib.format.read_array(io.BytesIO(stream.read(size + 1024)), allow_pickle=False)
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name} must be float32 {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all() or array.min(initial=0) < 0:
        raise ValueError(f"{name} holds a number that is no cost")
    return array.astype(np.float64)
