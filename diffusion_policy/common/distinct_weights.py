"""Each tensor of a policy once, and the identity of what was learned."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

LEARNED = ("model.", "obs_encoder.")  # a low-dimensional policy has the first only


def repeated_names(module: nn.Module) -> dict[str, str]:
    """State-dict names of tensors that have an earlier name there, too: repeated name -> first name.

    A vision encoder's are named as parts of it and in the list of its layers.
    """
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(value), name) for name, value in module.state_dict(keep_vars=True).items()}
    return {name: earlier for name, earlier in names.items() if name != earlier}


def distinct_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tensor under its first name only: how files hold it."""
    repeated = repeated_names(module)
    return {name: value for name, value in module.state_dict().items() if name not in repeated}


def complete_state(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `distinct_state`: adds the further names. What the file holds under both names stays."""
    repeated = repeated_names(module).items()
    return {**{name: tensors[first] for name, first in repeated if first in tensors}, **tensors}


def weights_hash(policy: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 values of what was learned (`LEARNED`), sorted by name.

    That is the denoiser and, for a policy with cameras, the vision encoder, each tensor under its first name. It
    identifies a set of weights: the same for an original checkpoint and its full-precision conversion. EMA and raw
    weights differ, and so does a half-precision conversion, whose rounded weights are other weights.
    """
    digest = hashlib.sha256()
    for name, value in sorted(distinct_state(policy).items()):
        if name.startswith(LEARNED):
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy())  # type: ignore[arg-type]  # has a buffer
    return digest.hexdigest()
