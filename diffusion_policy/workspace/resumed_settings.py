"""Which settings of a training may change when it goes on, and what it says about those that did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffusion_policy.common.config import ConfigError, to_plain
from diffusion_policy.workspace.earlier_names import present_objective

PROBED_WINDOWS = 64
_CLOSE = 1e-4  # relative; between machines sums of the same data differ by less, other data by more

# What decides the meaning of the weights or the sequence of batches may not change when a training goes on: the policy,
# the objective, the start, the data and these.
FIXED = ("seed", "training.batch_size")
# These change how it learns from there on, and nothing that was learned.
COURSE = (
    "training.learning_rate",
    "training.betas",
    "training.weight_decay",
    "training.lr_schedule",
    "training.warmup_steps",
    "training.decay_fraction",
    "training.snr_gamma",
    "training.noise_draws",
    "training.grad_clip",
    "training.precision",
    "ema",
)
# The others change nothing, or only when something happens: what is logged and kept, where it runs and writes.
_ALSO_STORED = ("rollout", "wandb", "device")
_OF_INFERENCE = ("num_inference_steps",)  # of a policy; training does not read it


def training_settings(cfg: DictConfig, start: str | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a training state says of the training it belongs to.

    Args:
        start: what the weights were before the first step, None for random ones.
        data: of `data_fingerprint`.
    """
    plain = to_plain(cfg)
    settings = {
        "task": plain["task"]["name"],
        "policy": plain["task"]["policy"],
        "objective": plain["objective"],
        "start": start,
        "data": dict(data),
        "seed": plain["seed"],
        "ema": plain["ema"],
        **{name: plain[name] for name in ("training", *_ALSO_STORED) if name in plain},
        "task.dataset": plain["task"].get("dataset"),
        "task.environment": plain["task"].get("environment"),
    }
    return json.loads(json.dumps(settings))  # as it will be read again


def data_fingerprint(train: torch.utils.data.Dataset, val: torch.utils.data.Dataset | None) -> dict[str, Any]:
    """Numbers of windows, and what some of them hold, summed so that rounding hardly changes it and other data do."""
    rows = torch.linspace(0, len(train) - 1, min(PROBED_WINDOWS, len(train)), dtype=torch.float64).round().long()
    with torch.random.fork_rng(devices=[]):  # a data set may draw; the training's own numbers must not notice
        torch.manual_seed(0)
        batch = train[rows]
    probe = {}
    for name, values in sorted(batch.items()):
        flat = values.double().flatten()
        weights = torch.cos(torch.arange(len(flat), dtype=torch.float64))
        probe[name] = [list(values.shape[1:]), (flat * weights).sum().item(), torch.linalg.vector_norm(flat).item()]
    return {"train_windows": len(train), "val_windows": 0 if val is None else len(val), "probe": probe}


def compare_settings(stored: Mapping[str, Any], current: Mapping[str, Any], state: str) -> list[str]:
    """Lines about what changed since a state was written, for a training that goes on.

    Args:
        stored: the `training_settings` in the state, also of an earlier version.
        current: those of this training.
        state: the state's file, for messages.
    Raises:
        ConfigError: what changed decides what the weights mean or which batches come; it says what to do.
    """
    stored = {**stored, "objective": present_objective(stored.get("objective"))}
    refused = []
    for key in ("task", "policy", "objective", "start", "seed"):
        refused += _differences(key, stored.get(key), current[key])
    refused = _of_training(refused)
    refused += _data_differences(stored.get("data") or {}, current["data"])
    others = _differences("training", stored.get("training"), current["training"])
    for key in ("ema", *_ALSO_STORED, "task.dataset", "task.environment"):
        others += _differences(key, stored.get(key), current.get(key))
    course, harmless = [], []
    for line in others:
        name = _name(line)
        if name in FIXED:
            refused.append(line)
        elif name in COURSE or name.partition(".")[0] in COURSE:
            course.append(line)
        else:
            harmless.append(line)
    _refuse(refused, state)
    lines = [f"changed, from here on: {'; '.join(course)}"] if course else []
    return lines + ([f"changed, without effect on what is learned: {'; '.join(harmless)}"] if harmless else [])


def check_same_policy(stored: Mapping[str, Any], cfg: DictConfig, state: str) -> None:
    """The first look of `compare_settings`, before a policy is built, which other settings may not allow.

    Raises:
        ConfigError: `state` is of another task or policy.
    """
    task = to_plain(cfg.task)
    current = json.loads(json.dumps({"task": task["name"], "policy": task["policy"]}))
    changed = [line for key, value in current.items() for line in _differences(key, stored.get(key), value)]
    _refuse(_of_training(changed), state)


def _name(line: str) -> str:
    """The setting that a line of `_differences` is about."""
    return line.partition(":")[0]


def _of_training(changed: list[str]) -> list[str]:
    return [line for line in changed if _name(line).rpartition(".")[2] not in _OF_INFERENCE]


def _refuse(changed: list[str], state: str) -> None:
    if changed:
        listed = "".join(f"\n  {line}" for line in changed)
        raise ConfigError(
            f"{state} belongs to a training with other settings, on which the weights and the batches depend "
            f"(there -> now):{listed}\n"
            "Go on with the settings of before; or train anew with another output_dir=, from these weights with "
            "init_checkpoint=<folder under checkpoints/>; or start over here with resume=false"
        )


def _differences(name: str, stored: Any, current: Any) -> list[str]:
    """'name.part: stored -> current' for every part that differs."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        keys = dict.fromkeys([*stored, *current])
        return [line for key in keys for line in _differences(f"{name}.{key}", stored.get(key), current.get(key))]
    return [] if stored == current else [f"{name}: {_short(stored)} -> {_short(current)}"]


def _data_differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    lines = [
        f"demonstrations, {name.replace('_', ' ')}: {stored.get(name)} -> {current[name]}"
        for name in ("train_windows", "val_windows")
        if stored.get(name) != current[name]
    ]
    stored_probe, probe = stored.get("probe") or {}, current["probe"]
    if sorted(stored_probe) != sorted(probe):
        names = f"{_short(sorted(stored_probe))} -> {_short(sorted(probe))}"
        return [*lines, f"demonstrations, what they hold: {names}"]
    for name, (shape, total, norm) in probe.items():
        stored_shape, *stored_numbers = stored_probe[name]
        tolerance = _CLOSE * max(norm, 1e-9)
        if stored_shape != shape:
            lines.append(f"demonstrations, shape of {name}: {stored_shape} -> {shape}")
        elif any(abs(before - now) > tolerance for before, now in zip(stored_numbers, (total, norm))):
            lines.append(f"demonstrations, numbers of {name}: others there than now")
    return lines


def same_normalizer(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether two normalizers' tensors by name are those of the same data."""
    return stored.keys() == own.keys() and all(
        stored[name].shape == own[name].shape
        and torch.allclose(stored[name].double(), own[name].double(), rtol=_CLOSE, atol=1e-6)
        for name in stored
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
