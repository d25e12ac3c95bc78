"""The file from which a training goes on: weights, EMA weights, optimizer, step and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distinct_weights import complete_state, distinct_state
from diffusion_policy.common.files import atomic_path
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.earlier_names import present_tensors
from diffusion_policy.workspace.resumed_settings import same_normalizer

_MAX_AXES = 8
STATE_FILE = "latest.safetensors"
_ADVICE = "move it away, or start over with resume=false"


@dataclass
class Progress:
    """How far a training is; `settings` are None in a state of a version that did not store them."""

    step: int = 0
    ema_step: int = 0
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)  # checkpoint name -> rollout score
    settings: dict[str, Any] | None = None


def write_state(
    path: Path, objective: nn.Module, ema: EMAModel, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Replaces the state at `path`. Until the new one is complete the old one stays.

    Raises:
        ConfigError: it cannot be written, say because the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("model.", objective), ("ema.", ema.averaged)):
        tensors.update({prefix + name: value.contiguous() for name, value in distinct_state(module).items()})
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()})
    try:
        with atomic_path(path) as temporary:
            # Not save_file: killed, it leaves a file that nobody removes, and only the owner can read its files.
            temporary.write_bytes(save(tensors, metadata={"state": json.dumps(asdict(progress))}))
    except (OSError, SafetensorError) as error:
        kept = "no state is there yet"
        if path.exists():
            kept = f"the state of before is still there ({path}); the same command goes on from it"
        raise ConfigError(
            f"the training state cannot be written to {path.parent} ({error}): make room or make the folder writable; "
            f"{kept}"
        ) from error


def read_progress(path: Path) -> Progress:
    """What the header of a state says.

    Raises:
        ConfigError: it is damaged, or no training state.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["state"])
        known = {name: header[name] for name in ("step", "ema_step", "seconds", "scores")}
        progress = Progress(**known, settings=header.get("settings"))
        counts = all(isinstance(value, int) and value >= 0 for value in (progress.step, progress.ema_step))
        if not (counts and isinstance(progress.scores, dict) and isinstance(progress.settings, (dict, type(None)))):
            raise ValueError("its header holds no training steps")
        progress.seconds = float(progress.seconds)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): {_ADVICE}") from error
    return progress


def read_state(
    path: Path, objective: nn.Module, ema: EMAModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Fills `objective`, `ema` and `optimizer`.

    Raises:
        ConfigError: the file is damaged, of another model, data or optimizer, or holds numbers that are not finite.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if strange := [name for name, value in tensors.items() if value.ndim > _MAX_AXES]:
            raise ValueError(f"{strange[0][:80]} has more than {_MAX_AXES} axes")
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): {_ADVICE}") from error
    if bad := [name for name, value in tensors.items() if value.is_floating_point() and torch.isnan(value).any()]:
        more = " and more" if len(bad) > 3 else ""
        raise ConfigError(
            f"{path} holds NaN in {', '.join(bad[:3])}{more}: the training had diverged. Start over with "
            "resume=false and a lower training.learning_rate"
        )
    own = objective.state_dict()
    weights, averages = (present_tensors(_part(tensors, prefix), own.keys()) for prefix in ("model.", "ema."))
    if normalizer := _normalizer(weights):
        if not same_normalizer(normalizer, {name: value.to(device) for name, value in _normalizer(own).items()}):
            raise ConfigError(
                f"{path} was trained on other demonstrations: its normalizer differs from that of the data now. Train "
                "with the data of before, or choose another output_dir"
            )
    try:
        objective.load_state_dict(complete_state(objective, weights))
        ema.averaged.load_state_dict(complete_state(ema.averaged, averages))
    except RuntimeError as error:
        raise ConfigError(
            f"{path} belongs to another model or task: choose another output_dir, or start over with resume=false\n"
            f"{error}"
        ) from error
    moments = _moments(_part(tensors, "optimizer."), optimizer, path)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _moments(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, path: Path
) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for name, value in tensors.items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        fits = all(
            0 <= index < len(parameters) and moments[key].shape == parameters[index].shape
            for index, moments in state.items()
            for key in ("exp_avg", "exp_avg_sq")
        )
        fits = fits and all(moments["step"].numel() == 1 for moments in state.values())
    except (ValueError, KeyError):
        fits = False
    if not fits:  # the fused optimizer would write past the end of them
        raise ConfigError(
            f"{path} holds the optimizer of other parameters: choose another output_dir, or start over with "
            "resume=false"
        )
    return state


def _normalizer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if "normalizer.params_dict." in name}
