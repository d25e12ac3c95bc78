"""The arithmetic of a diffusion scheduler as a table of numbers, so that a runtime needs no scheduler object.

Every supported solver does, at step k with model output m and fresh noise z:

    x0   = clip(x_gain * x + m_gain * m, -clip, clip)          estimate of the clean sample
    x    = to_x * x + to_x0 * x0 + to_last * x0_last + to_m * m + sigma * z
    x0_last = x0

Flow matching (Lipman et al. 2023) is x <- x + dt m with the velocity m: of the second line, to_x = 1 and to_m = dt.
DDPM (Ho et al. 2020, eq. 7) and DDIM (Song et al. 2021, eq. 12) do not use `x0_last`; the multistep DPM-Solver++
(Lu et al. 2022, algorithm 2) does not use `m` there. Values are those of diffusers' schedulers, with
steps from each timestep of the grid to the next one, whatever their distance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bac.errors import UserError
from bac.scheduler_kinds import clips, kind_of

if TYPE_CHECKING:
    from bac.loop import DenoisingLoop

COLUMNS = ("x_gain", "m_gain", "to_x", "to_x0", "to_last", "to_m", "sigma")


class UnsupportedSolver(UserError, ValueError):
    """A scheduler or option whose arithmetic is not in the table form; the reference runtime can still run it."""


@dataclass(frozen=True)
class Solver:
    """Coefficients of every step.

    Attributes:
        table: float64 [K, 7], columns as in `COLUMNS`.
        clip: bound of x0, infinity when the scheduler does not clip.
        draws: bool [K], steps at which the scheduler draws noise (it may draw even where sigma is 0).
        timesteps: int64 or float32 [K], what the denoiser is told.
        init_sigma: factor of the initial noise.
    """

    table: np.ndarray
    clip: float
    draws: np.ndarray
    timesteps: np.ndarray
    init_sigma: float

    @property
    def steps(self) -> int:
        return len(self.table)

    @property
    def deterministic(self) -> bool:
        """Whether no step adds noise: the initial noise decides the sample."""
        return not self.table[:, COLUMNS.index("sigma")].any()


def solver_of(loop: DenoisingLoop) -> Solver:
    """The table of a policy's denoising loop; its own `solver()` where it has one, else see `solver_from_scheduler`."""
    own = getattr(loop, "solver", None)
    if own is not None:
        return own()
    return solver_from_scheduler(loop.prepared(), dict(loop.step_kwargs))


def solver_from_scheduler(scheduler: Any, step_kwargs: dict[str, Any] | None = None) -> Solver:
    """Reads the table from a diffusers scheduler that is set to its number of steps; its state is left as it is.

    Raises:
        UnsupportedSolver: for anything not expressible above, naming it.
        ValueError: the scheduler itself gives no numbers with that many steps.
    """
    kwargs = dict(step_kwargs or {})
    config, kind = scheduler.config, kind_of(scheduler) or ""
    if kind != "flow" and config.prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise UnsupportedSolver(_advice(f"prediction_type={config.prediction_type!r}"))
    if config.get("thresholding", False):
        raise UnsupportedSolver(_advice("thresholding=True"))
    builder = _BUILDERS.get(kind)
    if builder is None:
        raise UnsupportedSolver(_advice(type(scheduler).__name__))
    rows, draws = builder(scheduler, kwargs)
    if kwargs:
        raise UnsupportedSolver(_advice(f"scheduler.step options {sorted(kwargs)}"))
    table = np.array([[float(value) for value in row] for row in rows])
    if not np.isfinite(table).all():
        bad = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise ValueError(
            f"{type(scheduler).__name__} with {len(table)} steps gives NaN or infinity at step {bad}: use fewer steps"
        )
    return Solver(
        table=table,
        clip=float(config.clip_sample_range) if clips(scheduler) else float("inf"),
        draws=np.asarray(draws, dtype=bool),
        timesteps=_told(scheduler.timesteps.cpu().numpy()),
        init_sigma=float(getattr(scheduler, "init_noise_sigma", 1.0)),  # diffusers' flow matching has none
    )


def euler_solver(times: Sequence[float], timesteps: Sequence[float] | None = None) -> Solver:
    """Euler's method along a flow dx/dt = v(x, t) from noise to the clean sample: x <- x + (t_next - t) v.

    Args:
        times: [K + 1], from noise to the clean sample, in either direction: 0, .1, ..., 1 or 1, .9, ..., 0.
        timesteps: [K], what the denoiser is told; None: the times.

    Raises:
        ValueError: the times neither rise nor fall, or there is not a timestep for each step.
    """
    t = np.asarray(times, dtype=np.float64)
    told = t[:-1] if timesteps is None else np.asarray(timesteps)
    steps = np.diff(t)
    if t.ndim != 1 or not len(steps) or not (np.isfinite(t).all() and ((steps > 0).all() or (steps < 0).all())):
        raise ValueError("the times of a flow have to rise or fall from noise to the clean sample, one step at least")
    if len(told) != len(steps):
        raise ValueError(f"{len(steps)} steps need as many timesteps, got {len(told)}")
    rows = [[1.0, t[-1] - start, 1.0, 0.0, 0.0, step, 0.0] for start, step in zip(t, steps)]
    return Solver(np.array(rows), float("inf"), np.zeros(len(rows), bool), _told(told), 1.0)


def _told(timesteps: np.ndarray) -> np.ndarray:
    return timesteps.astype(np.int64 if timesteps.dtype.kind == "i" else np.float32)


def _advice(what: str) -> str:
    return f"{what} is not supported by the planned and compiled runtimes: use runtime=reference"


def gains(prediction_type: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """(x_gain, m_gain): x0 from a sample x = alpha * x0 + sigma * noise and the model output."""
    return {"epsilon": (1 / alpha, -sigma / alpha), "sample": (0.0, 1.0), "v_prediction": (alpha, -sigma)}[
        prediction_type
    ]


def noise_gains(prediction_type: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """Likewise the factors of x and of the model output in the predicted noise."""
    return {"epsilon": (0.0, 1.0), "sample": (1 / sigma, -alpha / sigma), "v_prediction": (sigma, alpha)}[
        prediction_type
    ]


def posterior_mean(product: Any, before: Any) -> tuple[Any, Any]:
    """(to_x, to_x0) of the mean of q(x_n | x_t, x0), Ho et al. 2020, eq. 7; alphas_cumprod at t and n, any n < t."""
    alpha = product / before
    return alpha**0.5 * (1 - before) / (1 - product), before**0.5 * (1 - alpha) / (1 - product)


#: rows of the table, and the steps at which the scheduler draws noise
_Rows = tuple[list[list[Any]], list[bool]]


def _ddpm(scheduler: Any, kwargs: dict[str, Any]) -> _Rows:
    config = scheduler.config
    rows, draws = [], []
    products = scheduler.alphas_cumprod  # float32, and so is all that follows, as in diffusers: 1 - alpha cancels
    for t in scheduler.timesteps.tolist():
        previous = int(scheduler.previous_timestep(t))
        product, product_before = products[t], (products[previous] if previous >= 0 else torch.ones(()))
        variance = scheduler._get_variance(t) if t > 0 else 0.0
        sigma = variance if config.variance_type == "fixed_small_log" and t > 0 else variance**0.5
        rows.append(
            [
                *gains(config.prediction_type, product**0.5, (1 - product) ** 0.5),
                *posterior_mean(product, product_before),
                0.0,
                0.0,
                sigma,
            ]
        )
        draws.append(t > 0)
    return rows, draws


def _ddim(scheduler: Any, kwargs: dict[str, Any]) -> _Rows:
    config, eta = scheduler.config, float(kwargs.pop("eta", 0.0))
    reestimate = bool(kwargs.pop("use_clipped_model_output", False))
    products = scheduler.alphas_cumprod
    rows, draws = [], []
    grid = scheduler.timesteps.tolist()
    for t, previous in zip(grid, [*grid[1:], -1]):
        product = products[t]
        product_before = products[previous] if previous >= 0 else scheduler.final_alpha_cumprod
        sigma = eta * scheduler._get_variance(t, previous) ** 0.5 if eta else 0.0
        alpha, noise = product**0.5, (1 - product) ** 0.5
        direction = (1 - product_before - sigma**2).clamp(min=0) ** 0.5  # of the "direction pointing to x_t"
        own = gains(config.prediction_type, alpha, noise)
        if reestimate:  # the noise follows from the clipped x0
            rows.append([*own, direction / noise, product_before**0.5 - direction * alpha / noise, 0.0, 0.0, sigma])
        else:
            from_x, from_m = noise_gains(config.prediction_type, alpha, noise)
            rows.append([*own, direction * from_x, product_before**0.5, 0.0, direction * from_m, sigma])
        draws.append(eta > 0)
    return rows, draws


def _dpm_solver(scheduler: Any, kwargs: dict[str, Any]) -> _Rows:
    """DPM-Solver++ is linear in (x, m, x0_last): its coefficients are read off by stepping with unit vectors."""
    from diffusers import DPMSolverMultistepScheduler

    config = scheduler.config
    if config.algorithm_type != "dpmsolver++" or config.solver_order > 2:
        raise UnsupportedSolver(_advice(f"{config.algorithm_type} of order {config.solver_order}"))
    rows = []
    known = inspect.signature(DPMSolverMultistepScheduler.__init__).parameters
    arguments = {name: value for name, value in config.items() if name in known}
    probe = DPMSolverMultistepScheduler(**arguments)  # without clipping, which is not linear
    probe.set_timesteps(scheduler.num_inference_steps)
    for k, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[k]
        alpha, noise = (float(value) for value in scheduler._sigma_to_alpha_sigma_t(sigma))
        x_gain, m_gain = gains(config.prediction_type, alpha, noise)
        coefficients = []
        for x, x0, last in np.eye(3):
            probe._step_index, probe._begin_index = k, 0
            probe.lower_order_nums = min(k, config.solver_order)
            probe.model_outputs = [None, torch.tensor([last], dtype=torch.float64)]
            # the model output that makes the estimate of the clean sample equal to x0
            output = torch.tensor([(x0 - x_gain * x) / m_gain], dtype=torch.float64)
            coefficients.append(probe.step(output, t, torch.tensor([x], dtype=torch.float64)).prev_sample.item())
        rows.append([x_gain, m_gain, coefficients[0], coefficients[1], coefficients[2], 0.0, 0.0])
    return rows, [False] * len(rows)


def _flow(scheduler: Any, kwargs: dict[str, Any]) -> _Rows:
    config = scheduler.config
    for option in ("stochastic_sampling", "invert_sigmas"):
        if config.get(option, False):
            raise UnsupportedSolver(_advice(f"{option}=True"))
    table = euler_solver(scheduler.sigmas.tolist()).table
    return table.tolist(), [False] * len(table)


_BUILDERS: dict[str, Callable[[Any, dict[str, Any]], _Rows]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmpp": _dpm_solver,
    "flow": _flow,
}
