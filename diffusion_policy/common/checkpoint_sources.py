"""Finding the file that holds a policy's weights, and what is read from it: config, shapes, tensors, steps."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffusion_policy.common import hub
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.config_files import read_yaml
from diffusion_policy.common.other_policies import foreign_policy
from diffusion_policy.common.pickle_standins import Placeholder, printable
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE
from diffusion_policy.common.restricted_unpickler import (
    StoredTensor,
    TorchArchive,
    plain_config,
    plain_number,
    restricted_loads,
)

WEIGHTS = {"ema": "ema_model", "raw": "model"}  # our name -> the original's key in `state_dicts`
ORIGINALS = (
    "Original checkpoints are published on the Diffusion Policy project's data server, "
    "https://diffusion-policy.cs.columbia.edu/data/, under "
    "experiments/<low_dim|image>/<task>/diffusion_policy_transformer/train_<0|1|2>/checkpoints/, "
    "for example experiments/low_dim/pusht/diffusion_policy_transformer/train_0/checkpoints/latest.ckpt; "
    "bac checkpoint download task=<task> gets one"
)
_ROOT = Path(__file__).resolve().parents[2]
_SHIPPED = (_ROOT, _ROOT / "bac_workbench" / "shipped")  # of a checkout, of a wheel
_ZIP, _LEGACY, _PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"\x80"
_LISTED = 6  # entries named in an error message
_MAX_HEADER = 16 * 2**20  # bytes of a safetensors header; a policy's has 100 kB
_MAX_STEP = 2**63


class StoredWeights(NamedTuple):
    """An open file: nothing of its tensors has been read."""

    config: Any  # unresolved
    shapes: dict[str, tuple[int, ...]]
    elements: int  # numbers that the file holds for them
    read: Callable[[str], Tensor]
    step: int | None
    notes: Callable[[], list[str]]


# ---- finding ----
def find_weights(path: str | Path) -> Path:
    """The file that holds the weights; of an address `hf:user/name`, fetched from the Hugging Face Hub.

    Raises:
        CheckpointError: there is none.
    """
    if hub.is_address(path):
        path = hub.download(path)
    try:
        path = Path(path).expanduser()
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{str(path)[:200]!r} is not a path to a checkpoint ({error}): give one as text"
        ) from error
    try:
        return _weights_file(path)
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a NUL in it
        raise CheckpointError(f"{printable(str(path))} cannot be opened: {first_line(error)}") from error


def _weights_file(path: Path) -> Path:
    if path.parts[:1] == ("checkpoint",) and not path.exists():  # what is shipped is found from every working directory
        path = next((folder / path for folder in _SHIPPED if (folder / path).exists()), path)
    if path.is_dir():
        if (path / WEIGHTS_FILE).is_file():
            return path / WEIGHTS_FILE
        if (said := foreign_policy(path)) is not None:
            raise CheckpointError(said)
        candidates = [hit for depth in ("", "*/", "*/*/") for hit in _checkpoints_in(path, depth)]
        hint = f"choose one of: {some(candidates)}" if candidates else "give a folder that does, or an original .ckpt"
        raise CheckpointError(f"{path} holds no {WEIGHTS_FILE}; {hint}")
    if path.is_file():
        said = foreign_policy(path.parent) if path.name == "model.safetensors" else None
        if said is not None:
            raise CheckpointError(said)
        return path
    if path.exists():
        raise CheckpointError(f"{path} is neither a file nor a folder but a device, pipe or socket: give a checkpoint")
    beside = _checkpoints_in(path.parent) if path.parent.is_dir() else []
    hint = f" Beside it are: {some(beside)}." if beside else ""
    raise CheckpointError(f"there is no checkpoint at {printable(str(path))}.{hint} {ORIGINALS}")


def _checkpoints_in(folder: Path, depth: str = "") -> list[Path]:
    """Checkpoint folders and original files in `folder`, or `depth` (such as '*/') below it."""
    return sorted(hit.parent for hit in folder.glob(f"{depth}*/{WEIGHTS_FILE}")) + sorted(folder.glob(f"{depth}*.ckpt"))


# ---- reading ----
def open_weights(source: Path, weights: str) -> contextlib.AbstractContextManager[StoredWeights]:
    """Opens this project's safetensors file or an original `.ckpt`; `weights` is 'ema' or 'raw'.

    Raises:
        CheckpointError: it is neither, or is damaged.
    """
    return _open_folder(source, weights) if source.suffix == ".safetensors" else _open_original(source, weights)


@contextlib.contextmanager
def _open_folder(source: Path, weights: str) -> Iterator[StoredWeights]:
    config_file = source.with_name(CONFIG_FILE)
    with open(source, "rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if min(length, os.path.getsize(source)) > _MAX_HEADER:
        raise CheckpointError(
            f"{source} is truncated or no safetensors file (a header of {length} bytes): get it again"
        )
    with contextlib.ExitStack() as stack:
        try:
            file: Any = stack.enter_context(safe_open(source, "pt"))
            header = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except OSError:
            raise
        except Exception as error:  # besides SafetensorError, sizes beyond 64 bits and new types raise others
            raise CheckpointError(
                f"{source} is truncated or no safetensors file ({first_line(error)}): get it again"
            ) from error
        _check_header(header, source, weights)
        if not config_file.is_file():
            raise CheckpointError(
                f"{config_file} is missing, so the checkpoint is incomplete: get the whole folder again"
            )

        def read(name: str) -> Tensor:
            try:
                return file.get_tensor(name)
            except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
                raise CheckpointError(
                    f"{source}: {printable(name)} cannot be read ({first_line(error)}): get it again"
                ) from error

        step = header.get("step", "")
        step = int(step) if step.isascii() and step.isdecimal() and len(step) < 19 else None
        yield StoredWeights(read_yaml(config_file), shapes, sum(map(math.prod, shapes.values())), read, step, list)


def _check_header(header: dict[str, str], source: Path, weights: str) -> None:
    if header.get("weights") not in WEIGHTS:
        state = (
            "it is a training state: use a folder under checkpoints/ beside it"
            if "state" in header
            else ("its header does not say which weights it holds: write it with scripts/convert_checkpoint.py")
        )
        raise CheckpointError(f"{source} is not a policy of this project; {state}")
    if header["weights"] != weights:
        raise CheckpointError(
            f"weights={weights} was asked for but {source} holds {header['weights']} weights only: "
            f"use weights={header['weights']}, or load or convert the checkpoint it came from with weights={weights}"
        )


@contextlib.contextmanager
def _open_original(source: Path, weights: str) -> Iterator[StoredWeights]:
    with open(source, "rb") as file:
        start = file.read(16)
    if start.startswith(_LEGACY):
        raise CheckpointError(
            f"{source} has the file format of PyTorch before 1.6: if you trust it, "
            "load and save it with a later PyTorch"
        )
    if not start.startswith(_ZIP):
        kind = "a bare pickle" if start.startswith(_PICKLE) else f"no PyTorch file (it begins with {start[:8]!r})"
        raise CheckpointError(
            f"{source} is {kind if start else 'empty'}: give a checkpoint folder, "
            f"a {WEIGHTS_FILE} or an original .ckpt. {ORIGINALS}"
        )
    with TorchArchive(source) as archive:
        payload = archive.payload
        states = payload.get("state_dicts") if isinstance(payload, dict) else None
        if not isinstance(states, dict) or "cfg" not in payload:
            held = some(map(_key, payload)) if isinstance(payload, dict) else f"a {_kind(payload)}"
            raise CheckpointError(
                f"{source} is a PyTorch file but no checkpoint of the Diffusion Policy project: it holds {held} "
                f"instead of cfg and state_dicts{_advice(payload)}"
            )
        values = _pickles(archive, source)
        state = states.get(WEIGHTS[weights])
        if not isinstance(state, dict):
            kinds = [ours for ours, theirs in WEIGHTS.items() if isinstance(states.get(theirs), dict)]
            advice = f"use weights={kinds[0]}" if kinds else "use another checkpoint"
            raise CheckpointError(f"{source} holds no {weights} weights; it holds {some(kinds)}: {advice}")
        foreign = [
            name for name, value in state.items() if not isinstance(name, str) or not isinstance(value, StoredTensor)
        ]
        if foreign:
            raise CheckpointError(f"{source}: entries of its state dict are no tensors: {some(map(_key, foreign))}")
        for stored in state.values():
            archive.check(stored)
        step = plain_number(values.get("global_step"))
        step = int(step) if step is not None and 0 <= step < _MAX_STEP and step == int(step) else None
        storages = {stored.key: stored.storage_size for stored in state.values()}

        def told() -> list[str]:
            skipped = list(archive.budget.skipped)
            return [f"objects that a policy does not need were left out, of {some(skipped)}"] if skipped else []

        yield StoredWeights(
            plain_config(payload["cfg"]),
            {name: stored.size for name, stored in state.items()},
            sum(storages.values()),
            lambda name: archive.tensor(state[name]),
            step,
            told,
        )


def _advice(payload: Any) -> str:
    """What can be done with a state dict, which does not say what it is of."""
    if not isinstance(payload, dict) or not any(isinstance(value, StoredTensor) for value in payload.values()):
        return ""
    return (
        ". It is a state dict: weights without the settings they were trained with. Load it into the policy of your "
        "own code and call bac.accelerate(policy), or save the whole checkpoint from the original project's workspace"
    )


def _pickles(archive: TorchArchive, source: Path) -> dict[Any, Any]:
    """The small things beside the weights. Each is a pickle of its own; all are read: a refused one is noticed."""
    pickles = archive.payload.get("pickles")
    if not isinstance(pickles, (dict, type(None))):
        raise CheckpointError(
            f"{source}: its pickles are a {_kind(pickles)} instead of a dict: the file is damaged; get it again"
        )
    return {
        key: restricted_loads(value, f"{source}, pickles[{_key(key)}]", archive.budget)
        for key, value in (pickles or {}).items()
    }


# ---- texts ----
def _kind(value: Any) -> str:
    return value.foreign if isinstance(value, Placeholder) else type(value).__name__


def _key(key: Any) -> str:
    """A dictionary's key for an error message; keys are small (`PickleMachine.check_key`) but may be objects."""
    return (
        repr(printable(key))
        if isinstance(key, str)
        else repr(key)[:100]
        if isinstance(key, (int, float, bytes))
        else f"a {_kind(key)}"
    )


def some(items: Iterable[Any]) -> str:
    """The first few items, for an error message."""
    items = [printable(str(item)) for item in items]
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more or "nothing"


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
