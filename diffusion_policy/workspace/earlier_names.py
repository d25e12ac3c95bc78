"""What training states of earlier versions call otherwise: their trainings go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

_WORKSPACE = "diffusion_policy.workspace"
DENOISING = {"_target_": f"{_WORKSPACE}.objectives.denoising.DenoisingObjective"}
_CLASSES = {
    f"{_WORKSPACE}.condition_learner.ConditionLearner": f"{_WORKSPACE}.objectives.condition.ConditionObjective",
    f"{_WORKSPACE}.frozen_encoder_learner.FrozenEncoderLearner": (
        f"{_WORKSPACE}.objectives.frozen_encoder.FrozenEncoderObjective"
    ),
}
_ARGUMENTS = {"finest": "min_scale", "also": "auxiliary_targets", "views": "n_crops"}
_TENSORS = {"further_mean": "auxiliary_mean", "further_std": "auxiliary_std"}


def present_objective(objective: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of an objective as they are called now; None stood for denoising."""
    if objective is None:
        return DENOISING
    renamed = {_ARGUMENTS.get(name, name): value for name, value in objective.items()}
    target = renamed.get("_target_")
    return {**renamed, "_target_": _CLASSES.get(target, target)}


def present_tensors(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """An objective's tensors by the names that it has now, `own`; tensors of something else keep their names.

    A state of denoising held the policy's tensors, one of another objective those of the policy as `policy.<name>`.
    """
    if all(name in own for name in tensors):
        return dict(tensors)
    renamed = {_TENSORS.get(name, name): value for name, value in tensors.items()}
    prefixed = {f"policy.{name}": value for name, value in tensors.items()}
    return next((names for names in (renamed, prefixed) if all(name in own for name in names)), dict(tensors))
