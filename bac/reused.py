"""What is kept of the outputs of a branch, and what is added where it does not compute.

The output of a branch is a tensor, or a tuple whose first item is one (an attention may give its weights, too): that
tensor is the feature, the rest is given again as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.errors import UserError


class BranchError(UserError, TypeError):
    """What computes a block does not give what a branch gives."""


@dataclass(frozen=True)
class Output:
    """A branch output of one step.

    Attributes:
        version: how often PyTorch had seen the feature written to; None where it does not count.
    """

    step: int
    value: Any
    feature: Tensor
    version: int | None


#: a block's last two outputs, the latest at the end
Stored = tuple[Output, ...]


def feature_of(output: Any, block: str) -> Tensor:
    """The tensor of a branch output, [B, ...].

    Raises:
        BranchError: there is none.
    """
    feature = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(feature, Tensor):
        raise BranchError(
            f"block {block} gives a {type(output).__name__}; a branch gives a tensor, or a tuple that starts with one"
        )
    return feature


def with_feature(output: Any, feature: Tensor) -> Any:
    """A branch output with another tensor in the place of its own."""
    return (feature, *output[1:]) if isinstance(output, tuple) else feature


def held(stored: Stored | None, step: int, output: Any, block: str) -> Stored:
    """What is kept after an update."""
    feature = feature_of(output, block)
    return (*(stored or ())[-1:], Output(step, output, feature, _version(feature)))


def reused(stored: Stored, step: int, reuse: str, block: str) -> Any:
    """What a block gives at a step where it does not update; `reuse` as in `Schedule`.

    Raises:
        BranchError: the model has written to what is kept.
    """
    if any(_version(output.feature) != output.version for output in stored):
        raise BranchError(
            f"the model writes to the output of block {block} in place, so it cannot be given again: change that line "
            "of the model, or name a module around the block"
        )
    last = stored[-1]
    if reuse == "hold" or len(stored) == 1:
        return last.value
    earlier = stored[0]
    feature = last.feature + (step - last.step) / (last.step - earlier.step) * (last.feature - earlier.feature)
    return with_feature(last.value, feature)


def _version(feature: Tensor) -> int | None:
    return None if torch.is_inference(feature) else feature._version
