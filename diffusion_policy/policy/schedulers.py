"""Diffusers schedulers as the denoising loop uses them: a copy for every call, and right where diffusers' own are not.

What differs from diffusers, and why:

* DPM-Solver++ there never clips its estimate of the clean sample. On the cosine schedule alpha is nearly 0 at the
  first timestep, so an error of the network is divided by 0.0005 and never recovered from. `ClippedDPMSolver` clips as
  trained.
* DDIM there steps from t to t - T // K, which is not the next timestep of the `linspace` and `trailing` grids unless K
  divides T. `GridDDIM` steps to the next timestep of its grid.
* `trailing` may append a timestep -1 by rounding, which would read the last entry of the noise schedule: left out here.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from torch import Tensor

from diffusion_policy.common.light_diffusers import (
    DDIMScheduler,
    DDIMSchedulerOutput,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    randn_tensor,
)

#: variance types of diffusers' DDPM that cannot sample here, and why
_NO_VARIANCE = {
    "learned": "the model would have to predict it",
    "learned_range": "the model would have to predict it",
    "fixed_large_log": (
        "diffusers takes the root of a logarithm there, which is NaN: use fixed_large, which is what it means"
    ),
}
#: of a scheduler's options, those that the checkpoint was trained with
_LEARNED = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
_CLIPPING = ("clip_sample", "clip_sample_range")


class ClippedDPMSolver(DPMSolverMultistepScheduler):
    """DPM-Solver++ (Lu et al. 2022) that clips its estimate of the clean sample to +-`config.clip_sample_range`."""

    @classmethod
    def of(cls, scheduler: DPMSolverMultistepScheduler, bound: float) -> ClippedDPMSolver:
        """`scheduler` with clipping.

        Raises:
            ValueError: the algorithm has no estimate of the clean sample to clip.
        """
        kind = scheduler.config.algorithm_type
        if not kind.endswith("++"):
            raise ValueError(
                f"algorithm_type={kind!r} cannot clip the clean sample as the policy was trained to: use 'dpmsolver++'"
            )
        result = cls(**arguments(scheduler))
        result.register_to_config(clip_sample=True, clip_sample_range=float(bound))
        return result

    def convert_model_output(self, *args: Any, **kwargs: Any) -> Tensor:
        """The estimate [B, T, D] of the clean sample, clipped."""
        x0 = super().convert_model_output(*args, **kwargs)
        bound = self.config.clip_sample_range
        return x0 if self.config.thresholding else x0.clamp(-bound, bound)


class GridDDIM(DDIMScheduler):
    """DDIM (Song et al. 2021, eq. 12) from each timestep of its grid to the next one, whatever their distance."""

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Any = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """One update of `sample` [B, T, D]; arguments and results are those of `DDIMScheduler.step`."""
        config, t = self.config, int(timestep)
        previous = next_timestep(self, t)
        product = self.alphas_cumprod[t]
        product_before = self.alphas_cumprod[previous] if previous >= 0 else self.final_alpha_cumprod
        alpha, noise = product**0.5, (1 - product) ** 0.5
        if config.prediction_type == "epsilon":
            x0, epsilon = (sample - noise * model_output) / alpha, model_output
        elif config.prediction_type == "sample":
            x0, epsilon = model_output, (sample - alpha * model_output) / noise
        else:
            x0, epsilon = alpha * sample - noise * model_output, alpha * model_output + noise * sample
        if config.thresholding:
            x0 = self._threshold_sample(x0)
        elif config.clip_sample:
            x0 = x0.clamp(-config.clip_sample_range, config.clip_sample_range)
        if use_clipped_model_output:
            epsilon = (sample - alpha * x0) / noise
        sigma = eta * self._get_variance(t, previous) ** 0.5
        result = product_before**0.5 * x0 + (1 - product_before - sigma**2).clamp(min=0) ** 0.5 * epsilon
        if eta > 0:
            if variance_noise is None:
                variance_noise = randn_tensor(
                    model_output.shape, generator=generator, device=model_output.device, dtype=model_output.dtype
                )
            result = result + sigma * variance_noise
        return DDIMSchedulerOutput(prev_sample=result, pred_original_sample=x0) if return_dict else (result, x0)


def arguments(scheduler: Any) -> dict[str, Any]:
    """What `type(scheduler)` was made with, positional arguments included (`from_config` forgets those)."""
    known = inspect.signature(type(scheduler).__init__).parameters
    return {name: value for name, value in scheduler.config.items() if name in known}


def like_trained(trained: Any, kind: type, **options: Any) -> Any:
    """A scheduler of another class on the noise schedule, prediction type and clipping of `trained`.

    Options that `trained` was made without take the defaults of `kind`, as by diffusers' `from_config`. DPM-Solver++
    takes `clip_sample` and `clip_sample_range`, too.

    Raises:
        ValueError: `kind` has no such option, or cannot clip as `trained` does.
    """
    own = inspect.signature(type(trained).__init__).parameters
    chosen = {name: value for name, value in arguments(trained).items() if value != own[name].default}
    # what was learned is carried over even where it is the default of the trained scheduler's class
    chosen.update({name: trained.config[name] for name in (*_LEARNED, *_CLIPPING) if name in trained.config})
    known = inspect.signature(kind.__init__).parameters
    solver = issubclass(kind, DPMSolverMultistepScheduler)
    unknown = sorted(set(options) - set(known) - (set(_CLIPPING) if solver else set()))
    if unknown:
        raise ValueError(f"{kind.__name__} has no option {', '.join(unknown)}: it takes {', '.join(list(known)[1:])}")
    chosen.update(options)
    result = kind(**{name: value for name, value in chosen.items() if name in known})
    if solver and _clips(trained, options):
        return ClippedDPMSolver.of(result, chosen.get("clip_sample_range", 1.0))
    return result


def clipped_as(trained: Any, scheduler: Any) -> Any:
    """`scheduler`, clipping as `trained` does where its class alone would not.

    Raises:
        ValueError: its algorithm cannot clip.
    """
    if type(scheduler) is DPMSolverMultistepScheduler and _clips(trained, {}):
        return ClippedDPMSolver.of(scheduler, trained.config.get("clip_sample_range", 1.0))
    return scheduler


def _clips(trained: Any, options: dict[str, Any]) -> bool:
    # diffusers' DPM-Solver++ keeps a clip_sample of the config that it was made from, and ignores it
    own = type(trained) is not DPMSolverMultistepScheduler and trained.config.get("clip_sample", False)
    return bool(options.get("clip_sample", own))


def next_timestep(scheduler: Any, timestep: int) -> int:
    """The timestep after `timestep` on the scheduler's grid; -1 after the last."""
    grid = scheduler.timesteps.tolist()
    position = grid.index(timestep)
    return int(grid[position + 1]) if position + 1 < len(grid) else -1


def prepared(scheduler: Any, num_inference_steps: int, device: Any = None) -> Any:
    """A copy of `scheduler` that is set to `num_inference_steps` and ready for one chain; `scheduler` stays as it is.

    Raises:
        ValueError: the scheduler cannot take so many steps, or gives timesteps that do not descend.
    """
    variance = scheduler.config.get("variance_type")
    if isinstance(scheduler, DDPMScheduler) and variance in _NO_VARIANCE:
        raise ValueError(f"variance_type={variance!r} cannot be sampled: {_NO_VARIANCE[variance]}")
    own = copy.copy(scheduler)  # set_timesteps gives it everything that steps alter; the noise schedule is only read
    own.set_timesteps(num_inference_steps, device=device)
    grid = own.timesteps.tolist()
    if isinstance(own, (DDPMScheduler, DDIMScheduler)):
        if len(grid) == num_inference_steps + 1 and grid[-1] == -1:
            own.timesteps, grid = own.timesteps[:-1], grid[:-1]
        trained = own.config.num_train_timesteps
        descends = all(a > b for a, b in zip(grid, grid[1:]))
        if len(grid) != num_inference_steps or grid[0] >= trained or grid[-1] < 0 or not descends:
            raise ValueError(
                f"{type(own).__name__} with {num_inference_steps} steps, "
                f"timestep_spacing={own.config.timestep_spacing!r} and steps_offset={own.config.steps_offset} takes "
                f"timesteps {grid[0]} ... {grid[-1]}, which do not descend within 0..{trained - 1}: use fewer steps, "
                "or another offset"
            )
    if type(own) is DDIMScheduler and any(
        a - b != own.config.num_train_timesteps // num_inference_steps for a, b in zip(grid, grid[1:])
    ):
        own = _on_its_grid(own)
    return own


def _on_its_grid(scheduler: DDIMScheduler) -> GridDDIM:
    result = GridDDIM(**arguments(scheduler))
    # The noise schedule may have been replaced on the object itself.
    result.alphas_cumprod, result.final_alpha_cumprod = scheduler.alphas_cumprod, scheduler.final_alpha_cumprod
    result.num_inference_steps, result.timesteps = scheduler.num_inference_steps, scheduler.timesteps
    return result
