"""Coupled noise: a sampler of few steps that follows the full policy's own sample.

The full policy, DDPM over all T timesteps, draws x_{T-1} and then z_{T-1} ... z_1. From timestep t to n it carries the
noise of its past on by A_u = q_u s_{u-1} / s_u and adds sigma_u z_u at each step u -> u-1, where
q_u = a_u s_{u-1} / (s_u a_{u-1}) and sigma_u = s_{u-1} sqrt(1 - q_u^2). A coarse step t -> n takes the same sum,

    z = sum_u w_u z_u / |w|,   w_u = sigma_u prod_{v=n+1..u-1} A_v,   u = n+1 .. t,

and a start at t the sum over u = t+1 .. T-1 together with (prod A) x_{T-1}. Every z is exactly N(0, 1) and independent
of the others, so the law of the samples is that of fresh noise; with all T timesteps it is the full policy's sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bac.scheduler_kinds import kind_of

if TYPE_CHECKING:
    from bac.loop import DenoisingLoop


def noise_weights(products: np.ndarray, timesteps: Sequence[int]) -> np.ndarray:
    """How the noises of a coarse sampler are made of the full policy's.

    Args:
        products: alphas_cumprod [T] of training.
        timesteps: the grid [k].

    Returns:
        float64 [k, T], rows of unit norm: row 0 makes the start, row j the noise of step j - 1 (the last step has
        none). Column i weighs the i-th noise that the full policy draws: x_{T-1}, then z_{T-1}, ..., z_1.
    """
    products = np.asarray(products, dtype=np.float64)
    trained, starts = len(products), [len(products) - 1, *timesteps[:-1]]
    a, s = np.sqrt(products), np.sqrt(1 - products)
    q = a[1:] * s[:-1] / (s[1:] * a[:-1])  # of the steps u -> u - 1, u = 1 .. T - 1
    carry, sigma = q * s[:-1] / s[1:], s[:-1] * np.sqrt(np.clip(1 - q**2, 0, None))
    weights = np.zeros((len(timesteps), trained))
    for row, (above, below) in enumerate(zip(starts, timesteps)):
        product = 1.0
        for u in range(below + 1, above + 1):
            weights[row, trained - u] = product * sigma[u - 1]
            product *= carry[u - 1]
        if row == 0:
            weights[0, 0] = product
        if np.count_nonzero(weights[row]) == 1:
            weights[row] = weights[row] > 0  # exactly 1, whatever the rounding
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def undefined_because(own: DenoisingLoop) -> str | None:
    """Why there is no full policy to follow, in words; None: there is one.

    Args:
        own: the checkpoint's own denoising loop.
    """
    scheduler, steps = own.scheduler, own.num_inference_steps
    trained = len(scheduler.alphas_cumprod)
    wanted = f"coupled noise follows DDPM over all {trained} timesteps with variance_type=fixed_small"
    if kind_of(scheduler) != "ddpm":
        return f"{wanted}, and the policy's own sampler is a {type(scheduler).__name__}"
    if steps != trained:
        return f"{wanted}, and the policy's own sampler takes {steps}"
    if scheduler.config.variance_type != "fixed_small":
        return f"{wanted}, and the policy's own is {scheduler.config.variance_type}"
    return None
