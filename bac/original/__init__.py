"""Policies of the original Diffusion Policy project, and of anybody whose denoiser has its parameter names.

They have no denoising loop that can be replaced, only a method `conditional_sample` that does it all. `adopt` gives
such a policy what this package asks of one (`bac.loop.Policy`); the policy's own code goes on to encode and decode.
"""

from __future__ import annotations

from typing import Any

from bac.errors import Unavailable
from bac.original.policy import AdoptedPolicy

_NEEDED = ("model", "noise_scheduler", "num_inference_steps", "predict_action", "conditional_sample")


def adopt(policy: Any) -> Any:
    """The policy itself if its sampler can be replaced; else a face of it that has one.

    The original's own loop and this package's generate one trajectory each, from the same noise: a policy whose loop
    does anything else is refused. That takes the time of two chunks.

    Raises:
        ValueError: the policy is accelerated already.
        NoDenoiser: its denoiser is no transformer of known parameter names, such as a U-Net.
        Unavailable: its loop does something else, or it is no policy of the original project.
    """
    if hasattr(policy, "sampler"):
        return policy
    missing = [name for name in _NEEDED if not hasattr(policy, name)]
    if missing:
        raise Unavailable(
            f"this {type(policy).__name__} has no `sampler` to replace, and is no policy of the original Diffusion "
            f"Policy project either: it has no {', '.join(missing)}. For a denoiser in a loop of your own there is "
            "bac.cache(model, schedule)"
        )
    return AdoptedPolicy(policy)


__all__ = ["AdoptedPolicy", "adopt"]
