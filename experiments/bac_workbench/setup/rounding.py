"""How far a precision moves the actions, in words: it is chosen by name, and what it costs is said beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bac.loop import DenoisingLoop
from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.setup.experiment import Experiment

OBSERVATIONS = 8


@torch.no_grad()
def rounding(
    policy: Any, loop: DenoisingLoop, schedule: Schedule | None, runtime: str, precision: str, tokens: int | None
) -> tuple[float, float]:
    """Root mean square difference of executed actions to those in fp32, in standard deviations of these.

    Of random observations within the limits seen in training, from the same noise, in one runtime; and the same
    difference between two noises in fp32, to judge it by.
    """
    observation = policy.random_observation(OBSERVATIONS, torch.Generator().manual_seed(0))
    inputs = policy.sampler_inputs({name: value.to(policy.device) for name, value in observation.items()})

    def actions(precision: str, seed: int) -> Tensor:
        sampler = make_sampler(loop, schedule, runtime, precision, tokens=tokens)
        return sampler(inputs, torch.Generator().manual_seed(seed))[:, policy.chunk].float()

    exact = actions("fp32", 0)
    spread = exact.flatten(0, 1).std(0).clamp(min=1e-6)

    def apart(other: Tensor) -> float:
        return ((other - exact) / spread).pow(2).mean().sqrt().item()

    return apart(actions(precision, 0)), apart(actions("fp32", 1))


def say_rounding(experiment: Experiment, schedule: Schedule | None, say: Callable[[str], None]) -> None:
    """One line where the precision is not fp32, and the policy has observations to compare with."""
    settings, policy = experiment.settings, experiment.policy
    if settings.precision == "fp32" or not hasattr(policy, "random_observation"):
        return
    kept = experiment.tokens.kept
    own, noise = rounding(policy, experiment.sampler, schedule, settings.runtime, settings.precision, kept)
    say(
        f"precision {settings.precision}: executed actions differ from fp32's by {own:.2%} of their standard "
        f"deviation, and from those of another noise by {noise:.0%} ({OBSERVATIONS} random observations)"
    )
