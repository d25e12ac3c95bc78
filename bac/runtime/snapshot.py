"""What a runtime took from a model and a sampler when it was prepared, and whether they are still that."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

from bac.loop import DenoisingLoop

_of_version = operator.attrgetter("_version")


def _version(tensor: Tensor) -> int:
    """Counts writes to a tensor; 0 for one made in inference mode, which has no such counter."""
    return 0 if tensor.is_inference() else tensor._version


class ModelSnapshot:
    """Notices that a model's parameters, buffers or modules were written, moved or replaced, or that it got hooks.

    Writing through `.data` goes unnoticed, as does writing to parameters that were created in inference mode. Looked at
    before every chunk: walking `model.parameters()` instead takes five times as long.
    """

    def __init__(self, model: nn.Module):
        modules = list(model.modules())
        self._owners = [owner for module in modules for owner in (module._parameters, module._buffers) if owner]
        self._children = [(module._modules, tuple(module._modules.values())) for module in modules if module._modules]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._tensors = self._current()
        self._counted = [tensor for tensor in self._tensors if not tensor.is_inference()]
        self._state = self._look()

    def _current(self) -> list[Tensor]:
        return [tensor for owner in self._owners for tensor in owner.values() if tensor is not None]

    def _look(self) -> tuple[list[int], list[int]]:
        return list(map(Tensor.data_ptr, self._tensors)), list(map(_of_version, self._counted))

    def check(self) -> None:
        """Raises:
        RuntimeError: the model is not what it was.
        """
        current = self._current()
        same = len(current) == len(self._tensors) and all(map(operator.is_, current, self._tensors))
        if not same or self._look() != self._state:
            raise RuntimeError("the policy's weights changed after it was accelerated: call accelerate() again")
        if any(tuple(children.values()) != kept for children, kept in self._children):
            raise RuntimeError("a module of the policy was replaced after it was accelerated: call accelerate() again")
        if any(self._hooks):
            raise RuntimeError(
                "a module of the policy got a hook after it was accelerated, which would be bypassed: "
                "call accelerate() again"
            )


class SamplerSnapshot:
    """Notices that the sampler whose coefficients were read got another scheduler, setting or noise schedule."""

    def __init__(self, base: DenoisingLoop):
        self._base, self._scheduler, self._settings = base, base.scheduler, self._read(base)
        self._schedule = _noise_of(base.scheduler)
        self._values = None if self._schedule is None else torch.as_tensor(self._schedule).tolist()
        self._version = None if self._schedule is None else _version(self._schedule)

    @staticmethod
    def _read(base: DenoisingLoop) -> tuple:
        return base.num_inference_steps, dict(base.step_kwargs), base.scheduler.config

    def check(self) -> None:
        """Raises:
        RuntimeError: the sampler is not what it was.
        """
        base, schedule = self._base, _noise_of(self._base.scheduler)
        same = base.scheduler is self._scheduler and self._read(base) == self._settings
        if same and schedule is not None and (schedule is not self._schedule or _version(schedule) != self._version):
            same = schedule.tolist() == self._values  # it may only have been moved to another device
        if not same:
            raise RuntimeError("the policy's sampler was changed after it was accelerated: call accelerate() again")


def _noise_of(scheduler: Any) -> Any:
    """What may be replaced on the scheduler itself; flow matching has only its config."""
    return getattr(scheduler, "alphas_cumprod", None)
