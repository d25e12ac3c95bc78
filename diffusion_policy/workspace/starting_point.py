"""What a training starts from: the weights of another policy, all of them or what fits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError


def starting_point(policy: nn.Module, init_checkpoint: str | None, transfer: str | None, task: str) -> str | None:
    """Takes over the weights of `init_checkpoint`, or what fits of `transfer`, and says which; None: random weights."""
    if init_checkpoint:
        return start_from(policy, Path(init_checkpoint), task)
    if transfer:
        return transfer_from(policy, Path(transfer), task)
    return None


def start_from(policy: nn.Module, path: Path, task: str) -> str:
    """Takes over weights and normalizer of a trained policy, and returns their hash; the optimizer starts anew.

    Raises:
        CheckpointError: nothing loadable is at `path`; ConfigError: it is another model.
    """
    trained = load_policy(path, device=policy.device)
    try:
        policy.load_state_dict(trained.policy.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"init_checkpoint={path} is another model than task {task} trains\n{error}") from error
    print(f"starting from {trained}", flush=True)
    return trained.hash


def transfer_from(policy: nn.Module, path: Path, task: str) -> str:
    """Takes over what another task's policy has learned: every parameter that has the same name and shape here.

    The normalizer stays the one of this task's data, as does everything that depends on its sizes.

    Raises:
        CheckpointError: nothing loadable is at `path`; ConfigError: it has no layer in common with this policy.
    """
    trained = load_policy(path, device=policy.device)
    own = {name: p for name, p in policy.named_parameters() if p.numel() and not name.startswith("normalizer.")}
    others = dict(trained.policy.named_parameters())
    fits = {name for name, p in own.items() if name in others and others[name].shape == p.shape}
    if not any(".layers." in name for name in fits):
        raise ConfigError(f"transfer_from={path}: no layer of it fits the policy of task {task}")
    with torch.no_grad():
        for name in fits:
            own[name].copy_(others[name])
    fresh = ", ".join(sorted(own.keys() - fits)) or "none"
    print(f"taking over {len(fits)} of {len(own)} parameters of {trained}; new: {fresh}", flush=True)
    return f"transfer from {trained.hash}"
