"""The solver's table of a grid sampler, from the checkpoint's noise schedule alone. Columns are `bac.solver.COLUMNS`.

In single precision, as diffusers computes: with all timesteps of training the ancestral table is DDPM's, number for
number. a and s below are the levels of signal and noise, x_t = a x0 + s noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bac.samplers.settings import GridSettings
from bac.solver import gains, noise_gains, posterior_mean


def solver_table(settings: GridSettings, products: Tensor, prediction_type: str) -> np.ndarray:
    """float64 [k, 7].

    Args:
        products: alphas_cumprod [T] of training.
        prediction_type: what the denoiser predicts: epsilon, sample or v_prediction.
    """
    if settings.scalars is not None:
        return np.array(settings.scalars)
    grid = [products[t] for t in settings.timesteps]
    row = {"ancestral": _ancestral, "ddim": _ddim, "dpmpp": _dpmpp}[settings.kind]
    rows = [row(settings, prediction_type, grid, k) for k in range(len(grid))]
    return np.array([[float(value) for value in values] for values in rows])


def _next(grid: list[Tensor], k: int) -> Tensor:
    """alphas_cumprod at the next timestep of the grid; 1 after the last, where the step ends at x0."""
    return grid[k + 1] if k + 1 < len(grid) else torch.ones_like(grid[k])


def _ancestral(settings: GridSettings, prediction_type: str, grid: list[Tensor], k: int) -> list[Any]:
    """Ho et al. 2020, eq. 6 and 7, from each timestep of the grid to the next."""
    product, before = grid[k], _next(grid, k)
    sigma = _posterior_variance(product, before).clamp(min=1e-20) ** 0.5 if k + 1 < len(grid) else 0.0
    own = gains(prediction_type, product**0.5, (1 - product) ** 0.5)
    return [*own, *posterior_mean(product, before), 0.0, 0.0, sigma]


def _posterior_variance(product: Tensor, before: Tensor) -> Tensor:
    return (1 - before) / (1 - product) * (1 - product / before)


def _ddim(settings: GridSettings, prediction_type: str, grid: list[Tensor], k: int) -> list[Any]:
    """Song et al. 2021, eq. 12 and 16."""
    product, before = grid[k], _next(grid, k)
    sigma = settings.eta * _posterior_variance(product, before).clamp(min=0) ** 0.5
    a, s = product**0.5, (1 - product) ** 0.5
    direction = (1 - before - sigma**2).clamp(min=0) ** 0.5
    own = gains(prediction_type, a, s)
    if settings.reclip:  # the noise follows from the clipped x0
        return [*own, direction / s, before**0.5 - direction * a / s, 0.0, 0.0, sigma]
    from_x, from_m = noise_gains(prediction_type, a, s)
    return [*own, direction * from_x, before**0.5, 0.0, direction * from_m, sigma]


def _dpmpp(settings: GridSettings, prediction_type: str, grid: list[Tensor], k: int) -> list[Any]:
    """Lu et al. 2022, algorithm 2 (2M); the first and the last step are of order 1, and the last one ends at x0."""
    product = grid[k].double()
    a, s = product**0.5, (1 - product) ** 0.5
    own = gains(prediction_type, a, s)
    if k + 1 == len(grid):
        return [*own, 0.0, 1.0, 0.0, 0.0, 0.0]
    before = grid[k + 1].double()
    h = _half_log_snr(before) - _half_log_snr(product)
    to_x0 = -(before**0.5) * torch.expm1(-h)
    share = torch.zeros_like(h)  # of the difference to the last x0
    if settings.order == 2 and k > 0:
        share = h / (2 * (_half_log_snr(product) - _half_log_snr(grid[k - 1].double())))
    return [*own, (1 - before) ** 0.5 / s, to_x0 * (1 + share), -to_x0 * share, 0.0, 0.0]


def _half_log_snr(product: Tensor) -> Tensor:
    return 0.5 * (torch.log(product) - torch.log(1 - product))
