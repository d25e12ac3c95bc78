"""The released project's names: of tasks, of a block's module, of a block whose error is scored."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from bac.blocks import parse
from bac_workbench.settings import meant
from bac_workbench.setup.task_files import METHOD, TaskFile, task_files
from diffusion_policy.common.checkpoint import task_of
from diffusion_policy.common.config import ConfigError

PH = ("lift_ph", "can_ph", "square_ph", "transport_ph", "tool_hang_ph", "pusht")
MH = ("lift_mh", "can_mh", "square_mh", "transport_mh")
BLOCK_PUSHING, KITCHEN = ("block_pushing",), ("kitchen",)
LOW_DIM = BLOCK_PUSHING + KITCHEN
TASKS = PH + MH + LOW_DIM

#: the dropout that ends a block, whose output is the block's
_MODULES = {"sa": "dropout1", "ca": "dropout2", "ffn": "dropout3"}
_SCORED = {"sa": "sa_block", "ca": "mha_block", "ffn": "ff_block"}
#: names of the original project's task configurations that are none of this project's
_CONFIGURED = MappingProxyType(
    {"blockpush_lowdim_seed": "block_pushing", "blockpush_lowdim_seed_abs": "block_pushing_abs"}
)


def module_of(block: str) -> str:
    """'decoder.layers.3.ca' -> 'decoder.layers.3.dropout2'.

    Raises:
        ConfigError: the model is encoder-only, for which the released project has no names.
    """
    stack, layer, kind = parse(block)
    if stack != "decoder":
        raise ConfigError(f"{block}: the released commands know decoders only; use bac profile and bac eval")
    return f"decoder.layers.{layer}.{_MODULES[kind]}"


def modules_of(block: str) -> list[str]:
    """All modules that give this block's output; the released code records layer 0's self-attention twice."""
    further = ["decoder.layers.0.self_attn"] if block == "decoder.layers.0.sa" else []
    return [module_of(block), *further]


def scored_name(block: str) -> str:
    """'decoder.layers.3.ca' -> 'decoder.layers.3_mha_block', as errors are listed."""
    _, layer, kind = parse(block)
    return f"decoder.layers.{layer}_{_SCORED[kind]}"


def file_of(name: str) -> TaskFile:
    """The task that the released project calls so, or this one.

    Raises:
        ConfigError: there is none.
    """
    files = task_files()
    group = "low_dim" if name in LOW_DIM else "image"
    released = next((file for file in files.values() if file.original == f"{group}/{name}"), None)
    if name in TASKS and released is not None:
        return released
    if name in files:
        return files[name]
    known = [*TASKS, *files]
    raise ConfigError(f"--task {name}: use {', '.join(TASKS)}, or one of this project's tasks{meant(name, known)}")


def task_at(checkpoint: Path) -> TaskFile | None:
    """The task whose folder a checkpoint is in: checkpoint/can_ph/diffusion_policy_transformer/train_0/..."""
    parts = checkpoint.parts
    if METHOD not in parts[1:]:
        return None
    at = parts.index(METHOD, 1)
    name, below_low_dim = parts[at - 1], at > 1 and parts[at - 2] == "low_dim"
    for file in task_files().values():
        if file.original == f"low_dim/{name}" and below_low_dim or file.name == name and not below_low_dim:
            return file
    return file_of(name) if name in TASKS else None


def task_of_checkpoint(checkpoint: Path, named: str | None) -> TaskFile:
    """The task that a checkpoint is for: as it is `named`, by its folder, or as the file itself says.

    Raises:
        ConfigError: none of them says it.
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    if named is not None:
        return file_of(named)
    if (file := task_at(checkpoint)) is not None:
        return file
    said, files = task_of(checkpoint), task_files()
    choice = _CONFIGURED.get(str(said), said)
    for file in files.values():
        if choice in (file.name, file.choice):
            return file
    raise ConfigError(
        f"{checkpoint} says task {said!r}, which can be several here: add --task and one of {', '.join(TASKS)}"
    )
