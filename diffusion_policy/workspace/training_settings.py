"""What a training's settings have to be, and which of them may change when it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffusion_policy.common.config import ConfigError, to_plain
from diffusion_policy.workspace.learning_rate import SCHEDULES

PRECISIONS = ("bf16", "tf32", "fp32")
PROBED_WINDOWS = 64
_CLOSE = 1e-4  # relative; between machines sums of the same data differ by less, other data by more

# Settings of one training. What decides the meaning of the weights or the sequence of batches may not change when it goes on:
# the policy, the objective, the start, the data and these.
FIXED = ("seed", "training.batch_size")
# These change how it learns from there on, and nothing that was learned.
COURSE = tuple(
    f"training.{name}"
    for name in (
        "learning_rate",
        "betas",
        "weight_decay",
        "lr_schedule",
        "warmup_steps",
        "decay_fraction",
        "snr_gamma",
        "noise_draws",
        "grad_clip",
        "precision",
    )
) + ("ema",)
# The others change nothing, or only when something happens: what is logged and kept, where it runs, where its files are.
_ALSO_STORED = ("rollout", "wandb", "device")
_OF_INFERENCE = ("num_inference_steps",)  # of a policy; training does not read it


def check_training(cfg: DictConfig) -> None:
    """Raises ConfigError for settings that no training can have, before anything is read or written."""
    t = cfg.training
    _integer("seed", cfg.seed, 0, 2**40)
    for name in ("batch_size", "max_steps", "noise_draws", "topk"):
        _integer(f"training.{name}", t[name], 1)
    for name in ("warmup_steps", "num_workers", "log_every", "save_every", "validate_every", "checkpoint_every"):
        _integer(f"training.{name}", t[name], 0)
    if t.num_threads is not None:
        _integer("training.num_threads", t.num_threads, 1)
    _number("training.learning_rate", t.learning_rate, 0.0)
    _number("training.weight_decay", t.weight_decay, 0.0)
    _number("training.grad_clip", t.grad_clip, 0.0, above=True, infinite=True)
    if t.snr_gamma is not None:
        _number("training.snr_gamma", t.snr_gamma, 0.0, above=True)
    _number("training.decay_fraction", t.decay_fraction, 0.0, 1.0)
    betas = list(t.betas) if hasattr(t.betas, "__iter__") and not isinstance(t.betas, str) else [t.betas]
    if len(betas) != 2:
        raise ConfigError(f"training.betas={t.betas} is not possible: use two numbers, for example [0.9, 0.95]")
    for value in betas:
        _number("training.betas", value, 0.0, 1.0, below=True)
    if t.lr_schedule not in SCHEDULES:
        raise ConfigError(f"unknown training.lr_schedule={t.lr_schedule}: use {' or '.join(SCHEDULES)}")
    if t.precision not in PRECISIONS:
        raise ConfigError(f"training.precision={t.precision} is not supported: use bf16, tf32 (GPUs) or fp32")
    for name, value in (("training.cuda_graph", t.cuda_graph), ("resume", cfg.resume)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}={value} is not possible: use true or false")
    if cfg.init_checkpoint and cfg.transfer_from:
        raise ConfigError("init_checkpoint and transfer_from are two places to start from: set one of them")


def _integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        raise ConfigError(
            f"{name}={value} is not possible: use a whole number, at least {low}"
            + (f" and at most {high}" if high else "")
        )


def _number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
    infinite: bool = False,
) -> None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    fits = fits and (low < value if above else low <= value) and (value < high if below else value <= high)
    if not fits or (math.isinf(value) and not infinite):
        upper = "" if math.isinf(high) else f" and {'below' if below else 'at most'} {high:g}"
        raise ConfigError(
            f"{name}={value} is not possible: use a number {'above' if above else 'of at least'} {low:g}{upper}"
        )


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


def compare_settings(found: Mapping[str, Any], now: Mapping[str, Any], state: str) -> list[str]:
    """Lines about what changed since `state` was written, for a training that goes on.

    Raises:
        ConfigError: what changed decides what the weights mean or which batches come; it says what to do.
    """
    changed: list[str] = []
    for key in ("task", "policy", "objective", "start", "seed"):
        changed += _differences(key, found.get(key), now[key])
    changed = _of_training(changed)
    changed += _data_differences(found.get("data") or {}, now["data"])
    other = _differences("training", found.get("training"), now["training"])
    for key in ("ema", *_ALSO_STORED, "task.dataset", "task.environment"):
        other += _differences(key, found.get(key), now.get(key))
    name = lambda line: line.split(":")[0]  # noqa: E731
    changed += [line for line in other if name(line) in FIXED]
    _refuse(changed, state)
    course = [line for line in other if name(line) in COURSE or name(line).startswith("ema")]
    rest = [line for line in other if line not in course and name(line) not in FIXED]
    lines = [f"changed, from here on: {'; '.join(course)}"] if course else []
    return lines + ([f"changed, without effect on what is learned: {'; '.join(rest)}"] if rest else [])


def check_same_policy(found: Mapping[str, Any], cfg: DictConfig, state: str) -> None:
    """The first look of `compare_settings`, before a policy is built, which other settings may not allow.

    Raises:
        ConfigError: `state` is of another task or policy.
    """
    task = to_plain(cfg.task)
    now = json.loads(json.dumps({"task": task["name"], "policy": task["policy"]}))
    _refuse(_of_training([line for key in now for line in _differences(key, found.get(key), now[key])]), state)


def _of_training(changed: list[str]) -> list[str]:
    return [line for line in changed if line.split(":")[0].rpartition(".")[2] not in _OF_INFERENCE]


def _refuse(changed: list[str], state: str) -> None:
    if changed:
        raise ConfigError(
            f"{state} belongs to a training with other settings, on which the weights and the batches depend (there -> now):\n  "
            + "\n  ".join(changed)
            + "\nGo on with the settings of before; or train anew with another output_dir=, from these weights with "
            "init_checkpoint=<folder under checkpoints/>; or start over here with resume=false"
        )


def _differences(name: str, found: Any, now: Any) -> list[str]:
    """'name.part: there -> now' for every part that differs."""
    if isinstance(found, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*found, *now])
        return [line for key in keys for line in _differences(f"{name}.{key}", found.get(key), now.get(key))]
    return [] if found == now else [f"{name}: {_short(found)} -> {_short(now)}"]


def _data_differences(found: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = [
        f"demonstrations, {name.replace('_', ' ')}: {found.get(name)} -> {now[name]}"
        for name in ("train_windows", "val_windows")
        if found.get(name) != now[name]
    ]
    there, here = found.get("probe") or {}, now["probe"]
    if sorted(there) != sorted(here):
        return [*lines, f"demonstrations, what they hold: {_short(sorted(there))} -> {_short(sorted(here))}"]
    for name, (shape, total, size) in here.items():
        if there[name][0] != shape:
            lines.append(f"demonstrations, shape of {name}: {there[name][0]} -> {shape}")
        elif abs(there[name][1] - total) > _CLOSE * max(size, 1e-9) or abs(there[name][2] - size) > _CLOSE * max(
            size, 1e-9
        ):
            lines.append(f"demonstrations, numbers of {name}: others there than now")
    return lines


def same_normalizer(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether two normalizers' tensors by name are those of the same data."""
    return found.keys() == own.keys() and all(
        found[name].shape == own[name].shape
        and torch.allclose(found[name].double(), own[name].double(), rtol=_CLOSE, atol=1e-6)
        for name in found
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
