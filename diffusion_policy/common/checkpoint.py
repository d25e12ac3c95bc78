"""Loading a policy: from this project's folders or from a `.ckpt` of the original Diffusion Policy project."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffusion_policy.common.config import CheckpointError, ConfigError, choose_device, to_plain
from diffusion_policy.common.policy_files import (
    CONFIG_FILE, WEIGHTS_FILE, build_policy, complete_state, distinct_state, repeated_names,
)
from diffusion_policy.common.restricted_unpickler import StoredTensor, TorchArchive, plain_config, restricted_loads

WEIGHTS = {"ema": "ema_model", "raw": "model"}  # our name -> the original's key in `state_dicts`
ORIGINALS = (
    "Original checkpoints are published on the Diffusion Policy project's data server, "
    "https://diffusion-policy.cs.columbia.edu/data/, under "
    "experiments/<low_dim|image>/<task>/diffusion_policy_transformer/train_<0|1|2>/checkpoints/, "
    "for example experiments/low_dim/pusht/diffusion_policy_transformer/train_0/checkpoints/latest.ckpt; "
    "python scripts/download_checkpoint.py task=<task> gets one"
)
LEARNED = ("model.", "obs_encoder.")  # a low-dimensional policy has the first only
_ZIP, _LEGACY, _PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"\x80"
_LISTED = 6  # entries named in an error message


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
    """

    policy: nn.Module
    config: dict[str, Any]
    weights: str
    hash: str
    source: Path
    format: str
    step: int | None

    def __str__(self) -> str:
        kind = {"folder": "", "original": "original format, "}[self.format]
        step = "unknown step" if self.step is None else f"step {self.step}"
        return f"{self.weights.upper()} weights of {self.source} ({kind}{step}, hash {self.hash[:12]})"


class _Stored(NamedTuple):
    config: dict[str, Any]  # unresolved
    tensors: dict[str, Tensor]
    step: int | None


def load_policy(
    path: str | Path, weights: str = "ema", device: str | torch.device = "cpu", num_inference_steps: int | None = None
) -> LoadedPolicy:
    """Loads a policy; nothing from the file is executed.

    Args:
        path: a folder with policy.safetensors and config.yaml, such a policy.safetensors, or an original `.ckpt`.
        weights: 'ema' (the averaged weights, which the original evaluates) or 'raw'.
        num_inference_steps: denoising steps K instead of the checkpoint's.
    Raises:
        CheckpointError: nothing loadable is there; the message says why and what to do.
        ConfigError: the device is not there.
    """
    if weights not in WEIGHTS:
        raise CheckpointError(f"weights={weights} is unknown: use weights=ema or weights=raw")
    device = choose_device(str(device))
    source = _find(Path(path).expanduser())
    original = source.suffix != ".safetensors"
    try:
        stored = _read_original(source, weights) if original else _read_folder(source, weights)
        config = _resolve(stored.config, source)
        _set_steps(config, num_inference_steps)
        policy = build_policy(config)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read: {error}") from error
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"the config of {source} does not describe a policy this project can build: {error}") from error
    _fill(policy, stored.tensors, source)
    return LoadedPolicy(
        policy.to(device), config, weights, weights_hash(policy), source, "original" if original else "folder", stored.step
    )


def weights_hash(policy: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of what was learned (`LEARNED`), sorted by name.

    That is the denoiser and, for a policy with cameras, the vision encoder, each tensor under its first name. It identifies
    a set of weights: the same for an original checkpoint and its full-precision conversion. EMA and raw weights differ, and
    so does a half-precision conversion, whose rounded weights are other weights.
    """
    digest = hashlib.sha256()
    for name, value in sorted(distinct_state(policy).items()):
        if name.startswith(LEARNED):
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy())
    return digest.hexdigest()


# ---- finding and reading ----
def _find(path: Path) -> Path:
    """The file that holds the weights."""
    if path.is_dir():
        if (path / WEIGHTS_FILE).is_file():
            return path / WEIGHTS_FILE
        found = [hit for depth in ("", "*/", "*/*/") for hit in _checkpoints_in(path, depth)]
        hint = f"choose one of: {_some(found)}" if found else "give a folder that does, or an original .ckpt"
        raise CheckpointError(f"{path} holds no {WEIGHTS_FILE}; {hint}")
    if path.is_file():
        return path
    beside = _checkpoints_in(path.parent) if path.parent.is_dir() else []
    hint = f" Beside it are: {_some(beside)}." if beside else ""
    raise CheckpointError(f"there is no checkpoint at {path}.{hint} {ORIGINALS}")


def _checkpoints_in(folder: Path, depth: str = "") -> list[Path]:
    """Checkpoint folders and original files in `folder`, or `depth` (such as '*/') below it."""
    return sorted(hit.parent for hit in folder.glob(f"{depth}*/{WEIGHTS_FILE}")) + sorted(folder.glob(f"{depth}*.ckpt"))


def _read_folder(source: Path, weights: str) -> _Stored:
    config_file = source.with_name(CONFIG_FILE)
    try:
        with safe_open(source, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{source} is truncated or no safetensors file ({error}): get it again") from error
    if header.get("weights") not in WEIGHTS:
        state = "it is a training state: use a folder under checkpoints/ beside it" if "state" in header else (
            "its header does not say which weights it holds: write it with scripts/convert_checkpoint.py")
        raise CheckpointError(f"{source} is not a policy of this project; {state}")
    if header["weights"] != weights:
        raise CheckpointError(
            f"weights={weights} was asked for but {source} holds {header['weights']} weights only: "
            f"use weights={header['weights']}, or load or convert the checkpoint it came from with weights={weights}"
        )
    if not config_file.is_file():
        raise CheckpointError(f"{config_file} is missing, so the checkpoint is incomplete: get the whole folder again")
    try:
        config = OmegaConf.to_container(OmegaConf.load(config_file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError, OSError) as error:
        reason = _first_line(error)
        raise CheckpointError(f"{config_file} is not a readable YAML config ({reason}): get the folder again") from error
    step = header.get("step", "")
    return _Stored(config, tensors, int(step) if step.isdecimal() else None)


def _read_original(source: Path, weights: str) -> _Stored:
    with open(source, "rb") as file:
        start = file.read(16)
    if start.startswith(_LEGACY):
        raise CheckpointError(
            f"{source} has the file format of PyTorch before 1.6: if you trust it, load and save it with a later PyTorch"
        )
    if not start.startswith(_ZIP):
        kind = "a bare pickle" if start.startswith(_PICKLE) else f"no PyTorch file (it begins with {start[:8]!r})"
        raise CheckpointError(
            f"{source} is {kind if start else 'empty'}: give a checkpoint folder, a {WEIGHTS_FILE} or an original .ckpt. {ORIGINALS}"
        )
    with TorchArchive(source) as archive:
        payload = archive.payload
        states = payload.get("state_dicts") if isinstance(payload, dict) else None
        if not isinstance(states, dict) or "cfg" not in payload:
            held = _some(map(repr, payload)) if isinstance(payload, dict) else f"a {type(payload).__name__}"
            raise CheckpointError(
                f"{source} is a PyTorch file but no checkpoint of the Diffusion Policy project: it holds {held} "
                "instead of cfg and state_dicts"
            )
        # Each value is a pickle of its own; all are read, so that a refused one is noticed whatever its name.
        pickles = payload.get("pickles")
        notes = {key: restricted_loads(value, f"{source}, pickles[{key!r}]") for key, value in dict(pickles or {}).items()}
        state = states.get(WEIGHTS[weights])
        if not isinstance(state, dict):
            held = [ours for ours, theirs in WEIGHTS.items() if isinstance(states.get(theirs), dict)]
            advice = f"use weights={held[0]}" if held else "use another checkpoint"
            raise CheckpointError(f"{source} holds no {weights} weights; it holds {_some(held)}: {advice}")
        foreign = [name for name, value in state.items() if not isinstance(name, str) or not isinstance(value, StoredTensor)]
        if foreign:
            raise CheckpointError(f"{source}: entries of its state dict are no tensors: {_some(map(repr, foreign))}")
        tensors = {name: archive.tensor(value) for name, value in state.items()}
    step = notes.get("global_step")
    return _Stored(plain_config(payload["cfg"]), tensors, step if type(step) is int else None)


# ---- config ----
def _resolve(config: Any, source: Path) -> dict[str, Any]:
    """{'task': name, 'policy': resolved tree}; the only resolver a foreign config may call is our arithmetic one."""

    def defuse(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: defuse(value) for key, value in node.items()}
        if isinstance(node, list):
            return [defuse(value) for value in node]
        # ${oc.env:...} would copy environment variables into results; originals use ${now:...} outside of the policy.
        calls = isinstance(node, str) and "${" in node and ":" in node.replace("${eval:", "")
        return node.replace("${", "{") if calls else node

    if not isinstance(config, dict) or not isinstance(config.get("policy"), (dict, str)):
        raise CheckpointError(f"the config of {source} has no 'policy' section: it is not a policy checkpoint")
    try:
        root = OmegaConf.create(defuse(config))
        policy = to_plain(root.policy) if OmegaConf.is_dict(root.policy) else root.policy
        task = root.get("task", root.get("task_name"))
        task = task.get("name") if OmegaConf.is_dict(task) else task
    except (OmegaConfBaseException, RecursionError) as error:
        raise CheckpointError(f"the config of {source} cannot be resolved: {_first_line(error)}") from error
    return {"task": None if task is None else str(task), "policy": policy}


def _set_steps(config: dict[str, Any], num_inference_steps: int | None) -> None:
    """Puts another number of denoising steps into a resolved config."""
    if num_inference_steps is None:
        return
    trained = config["policy"].get("noise_scheduler", {}).get("num_train_timesteps")
    if type(num_inference_steps) is not int or num_inference_steps < 1 or (trained and num_inference_steps > trained):
        raise ConfigError(
            f"num_inference_steps={num_inference_steps} is not possible: use 1 to {trained}, the number it was trained with"
        )
    config["policy"]["num_inference_steps"] = num_inference_steps


# ---- weights ----
def _fill(policy: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Copies the tensors into the policy and checks that they are complete, fit and are finite."""
    tensors = complete_state(policy, tensors)
    for name, first in repeated_names(policy).items():
        both = first in tensors and name in tensors
        if both and not torch.equal(tensors[name].nan_to_num(), tensors[first].nan_to_num()):
            raise CheckpointError(
                f"{source}: {name} and {first} are one tensor of the policy but differ: the file is damaged; get it again"
            )
    try:
        policy.load_state_dict(tensors)
    except (RuntimeError, KeyError, TypeError) as error:
        own = policy.state_dict()  # by now with the normalizer fields the file names
        differ = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
        lists = {
            "missing": [name for name in own if name not in tensors],
            "unexpected": [name for name in tensors if name not in own],
            "of another shape": [f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}" for name in differ],
        }
        found = "; ".join(f"{what}: {_some(names)}" for what, names in lists.items() if names) or _first_line(error)
        raise CheckpointError(
            f"the weights in {source} do not fit the policy its config describes. Tensors {found}. "
            "If files were mixed, get the checkpoint again; if it is complete, its config describes an unsupported variant"
        ) from error
    fields = policy.normalizer.params_dict
    for field, size in policy.field_sizes.items():
        if field not in fields or fields[field].scale.numel() != size:
            held = {name: normalizer.scale.numel() for name, normalizer in fields.items()}
            raise CheckpointError(
                f"the normalizer in {source} needs {field!r} of size {size}; it holds {held}: the checkpoint is incomplete"
            )
    bad = [name for name, value in policy.named_parameters() if not torch.isfinite(value).all()]
    bad += [name for name, value in policy.named_buffers() if torch.isnan(value).any()]  # masks hold -inf
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite values in {_some(bad)}: training diverged or the file is damaged; use another checkpoint"
        )


def _some(items: Any) -> str:
    """The first few items, for an error message."""
    items = [str(item)[:200] for item in items]
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more or "nothing"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
