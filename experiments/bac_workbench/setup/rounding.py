"""How far a precision moves the actions, in words: it is chosen by name, and what it costs is said beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.setup.experiment import Experiment

OBSERVATIONS = 8


@torch.no_grad()
def rounding(experiment: Experiment, schedule: Schedule | None) -> tuple[float, float] | None:
    """Root mean square difference of executed actions to those in fp32, in standard deviations of these.

    Of random observations within the limits seen in training, from the same noise, in the runtime of the settings; and
    the same difference between two noises in fp32, to judge it by. None in fp32, and of policies without such
    observations.
    """
    settings, policy = experiment.settings, experiment.policy
    if settings.precision == "fp32" or not hasattr(policy, "random_observation"):
        return None
    kept = experiment.tokens.kept
    observation = policy.random_observation(OBSERVATIONS, torch.Generator().manual_seed(0))
    inputs = policy.sampler_inputs({name: value.to(experiment.device) for name, value in observation.items()})

    def actions(precision: str, seed: int) -> Tensor:
        sampler = make_sampler(experiment.sampler, schedule, settings.runtime, precision, tokens=kept)
        return sampler(inputs, torch.Generator().manual_seed(seed))[:, policy.chunk].float()

    exact = actions("fp32", 0)
    spread = exact.flatten(0, 1).std(0).clamp(min=1e-6)

    def apart(other: Tensor) -> float:
        return ((other - exact) / spread).pow(2).mean().sqrt().item()

    return apart(actions(settings.precision, 0)), apart(actions("fp32", 1))


def say_rounding(experiment: Experiment, schedule: Schedule | None, say: Callable[[str], None]) -> None:
    """One line where the precision is not fp32."""
    found = rounding(experiment, schedule)
    if found is not None:
        own, noise = found
        say(
            f"precision {experiment.settings.precision}: executed actions differ from fp32's by {own:.2%} of their "
            f"standard deviation, and from those of another noise by {noise:.0%} ({OBSERVATIONS} random observations)"
        )
