"""Loading a policy: from this project's folders or from a `.ckpt` of the original Diffusion Policy project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion_policy.common.checkpoint_sources import ORIGINALS, WEIGHTS, find_weights, first_line, open_weights, some
from diffusion_policy.common.config import CheckpointError, ConfigError, choose_device
from diffusion_policy.common.config_files import resolve
from diffusion_policy.common.distinct_weights import (
    LEARNED,
    complete_state,
    distinct_state,
    repeated_names,
    weights_hash,
)
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.common.weight_names import policy_names

if TYPE_CHECKING:
    from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy

__all__ = ["LEARNED", "LoadedPolicy", "ORIGINALS", "WEIGHTS", "load_policy", "task_of", "weights_hash"]

_MOST_NORMALIZED = 65_536  # numbers of a normalizer's tensor
_SPARE = 1_000_000  # numbers that a policy may have more than its file: tensors that say one number many times


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy ready to act, and what it is.

    Attributes:
        policy: in evaluation mode, on the chosen device, float32.
        config: {'task': name or None, 'policy': the resolved tree it was built from}.
        weights: 'ema' or 'raw'.
        hash: `weights_hash` of the policy.
        source: the file the weights came from.
        format: 'folder' (this project's) or 'original'.
        step: training steps taken, None if the checkpoint does not say.
        notes: what was done to the file's content or left out of it, in words.
    """

    policy: DiffusionTransformerPolicy
    config: dict[str, Any]
    weights: str
    hash: str
    source: Path
    format: str
    step: int | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = {"folder": "", "original": "original format, "}[self.format]
        step = "unknown step" if self.step is None else f"step {self.step}"
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.weights.upper()} weights of {self.source} ({kind}{step}, hash {self.hash[:12]}){notes}"


def load_policy(
    path: str | Path, weights: str = "ema", device: str | torch.device = "cpu", num_inference_steps: int | None = None
) -> LoadedPolicy:
    """Loads a policy; nothing from the file is executed, and nothing is built before it is known to fit the tensors.

    Args:
        path: a folder with policy.safetensors and config.yaml, such a policy.safetensors, or an original `.ckpt`; or
            one on the Hugging Face Hub, `hf:user/name[/folder][@revision]`.
        weights: 'ema' (the averaged weights, which the original evaluates) or 'raw'.
        num_inference_steps: denoising steps K instead of the checkpoint's.
    Raises:
        CheckpointError: nothing loadable is there; the message says why and what to do.
        ConfigError: the device is not there.
    """
    if not isinstance(weights, str) or weights not in WEIGHTS:
        raise CheckpointError(f"weights={str(weights)[:100]} is unknown: use weights=ema or weights=raw")
    device = choose_device(str(device))
    source = find_weights(path)
    original = source.suffix != ".safetensors"
    try:
        with open_weights(source, weights) as stored:
            config = _resolved(stored.config, source)
            _set_steps(config, num_inference_steps)
            _check_layers(config["policy"], len(stored.shapes), source)
            outline = build_policy(config, "meta")
            names, note = policy_names(stored.shapes, outline)
            shapes = {new: stored.shapes[name] for name, new in names.items()}
            _check_fit(outline, shapes, source, stored.elements)
            tensors = {new: stored.read(name) for name, new in names.items()}
            notes = (*([note] if note else ()), *stored.notes())
        policy = build_policy(config)
        _fill(policy, tensors, source)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error}") from error
    except MemoryError as error:
        raise CheckpointError(
            f"{source} needs more memory than there is: free some, or load it on another machine"
        ) from error
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(
            f"the config of {source} does not describe a policy this project can build: {error}"
        ) from error
    return LoadedPolicy(
        policy.to(device),
        config,
        weights,
        weights_hash(policy),
        source,
        "original" if original else "folder",
        stored.step,
        notes,
    )


def task_of(path: str | Path) -> str | None:
    """The name of the task that a checkpoint says it is for, None if it does not; no tensor is read.

    Raises:
        CheckpointError: nothing loadable is there.
    """
    source = find_weights(path)
    try:
        with open_weights(source, "ema") as stored:
            return _resolved(stored.config, source)["task"]
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error}") from error


# ---- config ----
def _resolved(config: Any, source: Path) -> dict[str, Any]:
    """{'task': name, 'policy': resolved tree}; the only resolver a foreign config may call is our arithmetic one."""
    if not isinstance(config, dict) or not isinstance(config.get("policy"), (dict, str)):
        raise CheckpointError(f"the config of {source} has no 'policy' section: it is not a policy checkpoint")
    try:
        policy = resolve(config, "policy")
        name = "task" if "task" in config else "task_name"
        task = config.get(name)
        if isinstance(task, dict):
            task = resolve({**config, "task name": task["name"]}, "task name") if "name" in task else None
        elif task is not None:
            task = resolve(config, name)
            task = task.get("name") if isinstance(task, dict) else task
    except CheckpointError as error:
        raise CheckpointError(f"the config of {source} cannot be resolved: {error}") from error
    if not isinstance(policy, dict):
        raise CheckpointError(f"the config of {source} has no 'policy' section: it is not a policy checkpoint")
    return {"task": None if task is None else str(task)[:200], "policy": policy}


def _check_layers(policy: dict[str, Any], tensors: int, source: Path) -> None:
    """Every layer has tensors of its own; an outline of many thousand layers would take its time."""
    for section in (policy, policy.get("model")):
        for name in ("n_layer", "n_cond_layers"):
            layers = section.get(name) if isinstance(section, dict) else None
            if type(layers) is int and layers > tensors:
                raise CheckpointError(
                    f"the config of {source} says {name}={layers:.3g}, but the file holds {tensors} tensors: "
                    "they do not fit"
                )


def _set_steps(config: dict[str, Any], num_inference_steps: int | None) -> None:
    """Puts another number of denoising steps into a resolved config."""
    if num_inference_steps is None:
        return
    scheduler = config["policy"].get("noise_scheduler")
    trained = scheduler.get("num_train_timesteps", 1000) if isinstance(scheduler, dict) else None  # diffusers' default
    if (
        type(num_inference_steps) is not int
        or num_inference_steps < 1
        or (type(trained) is int and num_inference_steps > trained)
    ):
        raise ConfigError(
            f"num_inference_steps={str(num_inference_steps)[:50]} is not possible: use 1 to {str(trained)[:20]}, "
            "the number it was trained with"
        )
    config["policy"]["num_inference_steps"] = num_inference_steps


# ---- weights ----
def _check_fit(
    outline: DiffusionTransformerPolicy, shapes: dict[str, tuple[int, ...]], source: Path, elements: int
) -> None:
    """Compares the shapes in the file with those of a policy without memory: all there, none more, each as needed."""
    large = [
        name
        for name, shape in shapes.items()
        if name.startswith("normalizer.") and torch.Size(shape).numel() > _MOST_NORMALIZED
    ]
    if large:
        raise CheckpointError(
            f"{source}: {some(large)} is too large for a normalizer: the file is damaged; get it again"
        )
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    tensors = complete_state(outline, tensors)
    try:
        outline.load_state_dict(tensors)
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        own = outline.state_dict()  # by now with the normalizer fields the file names
        differ = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
        lists = {
            "missing": [name for name in own if name not in tensors],
            "unexpected": [name for name in tensors if name not in own],
            "of another shape": [
                f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}" for name in differ
            ],
        }
        mismatches = "; ".join(f"{what}: {some(names)}" for what, names in lists.items() if names) or first_line(error)
        raise CheckpointError(
            f"the weights in {source} do not fit the policy its config describes. Tensors {mismatches}. "
            "If files were mixed, get the checkpoint again; if it is complete, "
            "its config describes an unsupported variant"
        ) from error
    fields: Any = outline.normalizer.params_dict
    for field, size in outline.field_sizes.items():
        if field not in fields or fields[field].scale.numel() != size:
            held = {name: normalizer.scale.numel() for name, normalizer in list(fields.items())[:20]}
            raise CheckpointError(
                f"the normalizer in {source} needs {field!r} of size {size}; it holds {str(held)[:500]}: "
                "the checkpoint is incomplete"
            )
    needed = sum(value.numel() for value in distinct_state(outline).values())
    if needed > elements + _SPARE:
        raise CheckpointError(
            f"the policy that the config of {source} describes has {needed} numbers but the file only {elements}: "
            "it is damaged"
        )


def _fill(policy: DiffusionTransformerPolicy, tensors: dict[str, Tensor], source: Path) -> None:
    """Copies the tensors into the policy and checks that they can be weights."""
    tensors = complete_state(policy, tensors)
    for name, first in repeated_names(policy).items():
        both = first in tensors and name in tensors
        if both and not torch.equal(tensors[name].nan_to_num(), tensors[first].nan_to_num()):
            raise CheckpointError(
                f"{source}: {name} and {first} are one tensor of the policy but differ: the file is damaged; "
                "get it again"
            )
    policy.load_state_dict(tensors)
    weights = [
        name for name, value in policy.named_parameters() if not name.startswith("normalizer.") and value.numel()
    ]
    whole = [name for name in weights if not tensors[name].is_floating_point()]
    if whole:
        raise CheckpointError(
            f"{source} holds numbers of type {tensors[whole[0]].dtype} in {some(whole)}: "
            "quantised weights are not read; use the checkpoint they were made from"
        )
    bad = [name for name, value in policy.named_parameters() if not torch.isfinite(value).all()]
    for name, value in policy.named_buffers():
        if name.endswith("mask"):  # masks hold -inf; a row of nothing else would make NaN
            wrong = bool(torch.isnan(value).any() or (value.numel() and (value == -torch.inf).all(-1).any()))
        else:
            wrong = not bool(torch.isfinite(value).all())
        bad += [name] if wrong else []
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite values in {some(bad)}: training diverged or the file is damaged; "
            "use another checkpoint"
        )
    fields: Any = policy.normalizer.params_dict
    zero = [name for name, field in fields.items() if (field.scale == 0).any()]
    if zero:
        raise CheckpointError(
            f"{source}: the normalizer divides by zero in {some(zero)}: the file is damaged; get it again"
        )
