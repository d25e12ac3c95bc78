"""One chunk of a runtime against the `reference`, on the machine and the weights that will act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bac.errors import Unavailable, UserError
from bac.loop import DenoisingLoop, Policy, SamplerInputs
from bac.runtime.contract import Runtime
from bac.runtime.reference import ReferenceSampler

#: largest difference of an entry of the denoised trajectory, relative to the largest entry (at least 1, in normalised
#: units): rounding stays far below, a part of the model that is left out does not
TOLERANCES = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.2, "int8": 0.4}
SEED = 0


class VerificationError(UserError, RuntimeError):
    """A runtime's actions are not those of the reference."""


@dataclass(frozen=True)
class Verification:
    """What a comparison found: `difference` and `tolerance` are relative, see `TOLERANCES`."""

    runtime: str
    difference: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"one chunk of runtime {self.runtime} differs from the reference by {self.difference:.1e} of its largest "
            f"action (at most {self.tolerance:g} is allowed)"
        )


def inputs_of(policy: Policy, observation: dict[str, Any] | None) -> SamplerInputs:
    """What the sampler of `policy` takes for an observation; None: a random one within the limits seen in training.

    Raises:
        Unavailable: the policy lacks the method that is needed.
    """
    source: Any = policy
    if observation is None:
        if not hasattr(source, "random_observation"):
            raise Unavailable(f"this {type(policy).__name__} has no random_observation(): give an observation")
        observation = source.random_observation(1, torch.Generator().manual_seed(SEED))
    if not hasattr(source, "sampler_inputs"):
        raise Unavailable(f"this {type(policy).__name__} has no sampler_inputs(), so no chunk can be sampled apart")
    return source.sampler_inputs(observation)


@torch.no_grad()
def compare(sampler: Runtime, loop: DenoisingLoop, inputs: SamplerInputs, precision: str) -> Verification:
    """Samples the same trajectories in a runtime and in the reference, from the same noise.

    Raises:
        VerificationError: they differ by more than the tolerance of the precision, or are not finite.
        Unavailable: the runtime is the reference itself.
    """
    if sampler.name == ReferenceSampler.name:
        raise Unavailable("runtime=reference is what others are verified against: leave verify out")
    reference = ReferenceSampler(loop, sampler.schedule, tokens=sampler.tokens)
    expected = reference(inputs, torch.Generator().manual_seed(SEED)).float()
    got = sampler(inputs, torch.Generator().manual_seed(SEED)).float()
    difference = ((got - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    found = Verification(sampler.name, difference, TOLERANCES[precision])
    if not difference <= found.tolerance:  # also where it is NaN
        raise VerificationError(
            f"{found}. If weights were written through .data, call accelerate() again; else use another runtime, and "
            "please report this with the output of bac doctor"
        )
    return found
