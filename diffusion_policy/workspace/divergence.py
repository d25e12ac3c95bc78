"""Ending a training whose numbers are not finite, with the likeliest cause and where it can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError


class DivergenceCheck:
    """Looks at losses and weights.

    Args:
        training: the settings under `training`, which the advice names.
        last_state: says where the training can go on, in words.
    """

    def __init__(self, training: DictConfig, last_state: Callable[[], str]):
        self.training, self.last_state = training, last_state

    def check_losses(self, losses: list[Tensor], step: int, name: str = "the loss") -> None:
        """Of the last steps, the newest, of `step`, last. Waits for a GPU to finish.

        Raises:
            ConfigError: one is not finite.
        """
        values = torch.stack(losses).float().cpu()
        finite = torch.isfinite(values)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            self.stop(f"{name} is {values[first].item()}", step - len(losses) + first + 1)

    def check_weights(
        self, objective: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, step: int
    ) -> None:
        """Raises ConfigError if a weight, its average or a moment of the optimizer is not finite."""
        moments = [
            f"{name} of the optimizer"
            for state in optimizer.state.values()
            for name, value in state.items()
            if torch.is_tensor(value) and not torch.isfinite(value).all()
        ]
        if bad := not_finite(objective) or not_finite(averaged) or moments:
            self.stop(f"{bad[0]} is not finite", step)

    def check_half_precision(self, policy: nn.Module, step: int) -> None:
        """Raises ConfigError if a checkpoint of half precision cannot hold a weight."""
        largest = max(value.abs().max().item() for value in policy.parameters() if value.numel())
        if largest > torch.finfo(torch.float16).max:
            self.stop(f"a weight is {largest:.3g}, which no half-precision checkpoint can hold,", step)

    def stop(self, problem: str, step: int) -> NoReturn:
        t = self.training
        if step == 1 and problem.startswith("the loss"):
            why = (
                "It is so in the first step, before anything was learned: the numbers of some demonstrations or of the "
                "start are too large"
            )
        else:
            coarse = "" if t.precision == "fp32" else f" then training.precision={t.precision} (fp32 is finer),"
            why = (
                f"The likeliest cause is training.learning_rate={t.learning_rate}: lower it, or warm up longer "
                f"(training.warmup_steps);{coarse} then gradients that are too large (training.grad_clip={t.grad_clip})"
                ", or demonstrations with single numbers far from the others"
            )
        raise ConfigError(f"{problem} at step {step}. {why}. {self.last_state()}")


def not_finite(module: nn.Module) -> list[str]:
    """Names of parameters and buffers that hold NaN or, apart from masks, infinity."""
    bad = [name for name, value in module.named_parameters() if not torch.isfinite(value).all()]
    return bad + [
        name for name, value in module.named_buffers() if value.is_floating_point() and torch.isnan(value).any()
    ]
