"""What the denoiser is trained on: which timesteps are drawn, and what it has to predict at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow")


def prediction_type(scheduler: Any) -> str:
    """What a model trained with the diffusers `scheduler` predicts, one of `PREDICTION_TYPES`.

    Raises:
        ValueError: it is another kind.
    """
    kind = scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type {kind!r} is not supported: use one of {', '.join(PREDICTION_TYPES)}")
    return kind


def draw_timesteps(
    scheduler: Any, count: int, device: torch.device, generator: torch.Generator | None, snr_gamma: float | None
) -> Tensor:
    """`count` timesteps [count] in 0..K-1, in proportion to `min_snr_weights`; all alike with `snr_gamma=None`.

    Raises:
        ValueError: `snr_gamma` is set, and the policy learns by flow matching, which weighs all levels alike.
    """
    if snr_gamma is None:
        steps = scheduler.config.num_train_timesteps
        return torch.randint(steps, (count,), generator=generator, device=device)
    if prediction_type(scheduler) == "flow":
        raise ValueError(
            f"training.snr_gamma={snr_gamma} weighs the levels of diffusion: leave it null for flow matching"
        )
    weights = min_snr_weights(scheduler.alphas_cumprod, snr_gamma, prediction_type(scheduler)).to(device)
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def prediction_target(scheduler: Any, trajectory: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the model should predict [B, T, D] of a clean trajectory and its noise [B, T, D] at timesteps [B].

    That is the noise, the trajectory, the velocity of Salimans and Ho 2022, section 4, or that of a straight path.
    """
    kind = prediction_type(scheduler)
    if kind == "flow":
        return noise - trajectory
    if kind == "v_prediction":
        product = scheduler.alphas_cumprod.to(noise.device)[timesteps].view(-1, 1, 1)
        return product**0.5 * noise - (1 - product) ** 0.5 * trajectory
    return noise if kind == "epsilon" else trajectory


def min_snr_weights(alphas_cumprod: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Weight of each timestep [K] in the loss, of mean 1 (Hang et al. 2023, "Min-SNR", section 3.4).

    The noise of an almost clean trajectory cannot be told whatever the observation, yet it makes up most of the plain
    loss on the noise. Weighing by min(SNR, gamma), in units of the loss on the clean trajectory, leaves the gradient to
    the timesteps at which the observation matters.

    Args:
        alphas_cumprod: [K], the share of the clean trajectory's variance left at each timestep.
        gamma: the signal-to-noise ratio from which on timesteps count alike.
        prediction_type: one of `PREDICTION_TYPES`.
    """
    snr = alphas_cumprod / (1 - alphas_cumprod)
    # a loss on the noise is SNR times the one on the clean trajectory, a loss on the velocity SNR + 1 times
    weights = snr.clamp(max=gamma) / {"epsilon": snr, "sample": 1.0, "v_prediction": snr + 1}[prediction_type]
    return weights / weights.mean()
