"""What may be set on a finished policy, as in the original project: it decides the next call, or is refused."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.schedulers import clipped_as

#: what a policy is made for; its weights fit nothing else
_FIXED = (
    "horizon",
    "n_obs_steps",
    "obs_dim",
    "action_dim",
    "obs_shapes",
    "cameras",
    "obs_as_cond",
    "pred_action_steps_only",
)
_SETTABLE = (
    "num_inference_steps",
    "noise_scheduler",
    "kwargs",
    "n_action_steps",
    "sampler",
    "model",
    "normalizer",
    *_FIXED,
)


class SettablePolicy(nn.Module):
    """The part of a policy that answers to attributes being set. A policy counts as finished once it has a `sampler`.

    A subclass provides `model`, `chunk`, `_noise_scheduler`, `_n_action_steps`, `_trajectory_steps` and `sampler`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        finished = "sampler" in self.__dict__
        if finished and name in _FIXED and name in self.__dict__:
            raise AttributeError(
                f"{name}={value!r} cannot be set: the policy was made and trained with {name}={getattr(self, name)!r}"
            )
        if finished and not name.startswith("_") and not hasattr(self, name):
            close = difflib.get_close_matches(name, _SETTABLE, 1, 0.75)
            if close:
                raise AttributeError(
                    f"a policy has no {name!r}, so setting it would do nothing: did you mean {close[0]!r}?"
                )
        if finished and name == "sampler" and not callable(value):
            raise AttributeError(
                f"sampler={value!r} cannot be set: it has to be a denoising loop, such as a DiffusionSampler"
            )
        if finished and name == "model":
            self._renew_sampler(model=value)
        super().__setattr__(name, value)

    def _renew_sampler(
        self,
        model: nn.Module | None = None,
        scheduler: Any = None,
        steps: int | None = None,
        step_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        sampler = self.sampler
        own = getattr(sampler, "own", sampler)  # a sampler on a grid of its own keeps the checkpoint's
        if not isinstance(own, DiffusionSampler):
            raise AttributeError(
                "an accelerated policy's sampler and model cannot be changed: leave the accelerate() block first"
            )
        if own is not sampler and (steps is not None or step_kwargs is not None):
            name, value = ("kwargs", step_kwargs) if steps is None else ("num_inference_steps", steps)
            raise AttributeError(
                f"{name}={value!r} cannot be set: the policy's sampler is a {type(sampler).__name__}, which has "
                f"{sampler.num_inference_steps} timesteps and options of its own: set policy.sampler to another one, "
                "or to policy.sampler.own, the checkpoint's, first"
            )
        renewed = DiffusionSampler(
            own.model if model is None else model,
            own.scheduler if scheduler is None else scheduler,
            own.num_inference_steps if steps is None else steps,
            own.step_kwargs if step_kwargs is None else dict(step_kwargs),
        )
        self.sampler = renewed if own is sampler else sampler.on(renewed)

    def _check_steps(self, steps: Any) -> None:
        trained = self._noise_scheduler.config.num_train_timesteps
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= trained:
            raise ValueError(
                f"num_inference_steps={steps!r} is not possible: use 1 to {trained}, the number it was trained with"
            )

    @property
    def _loop(self) -> Any:
        """The policy's own denoising loop, also while it is accelerated."""
        sampler = self.sampler
        return sampler if isinstance(sampler, DiffusionSampler) else getattr(sampler, "base", sampler)

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps K of a chunk; setting it decides the next call.

        Raises:
            ValueError: not a whole number from 1 to the number of steps in training.
        """
        return self._loop.num_inference_steps

    @num_inference_steps.setter
    def num_inference_steps(self, steps: int) -> None:
        self._check_steps(steps)
        self._renew_sampler(steps=steps)

    @property
    def noise_scheduler(self) -> Any:
        """The diffusers scheduler of training and, unless `sampler` was replaced, of sampling.

        One that is set clips the clean sample as the one before it did.
        """
        return self._noise_scheduler

    @noise_scheduler.setter
    def noise_scheduler(self, scheduler: Any) -> None:
        needed = ("config", "set_timesteps", "step", "add_noise")
        if not all(hasattr(scheduler, name) for name in needed):
            raise AttributeError(
                f"noise_scheduler has to be a scheduler of diffusers, not a {type(scheduler).__name__}"
            )
        trained = self._noise_scheduler
        if not all(hasattr(each, "alphas_cumprod") for each in (trained, scheduler)):
            raise AttributeError(
                f"noise_scheduler={type(scheduler).__name__} cannot be set on a policy trained with "
                f"{type(trained).__name__}: flow matching and diffusion predict different things"
            )
        own, other = (torch.as_tensor(each.alphas_cumprod).cpu() for each in (trained, scheduler))
        same = torch.equal(own, other)
        if not same or scheduler.config.get("prediction_type") != trained.config.prediction_type:
            warnings.warn(
                "the new noise_scheduler has another noise schedule or prediction_type than the one the policy was "
                f"trained with: make it with {type(scheduler).__name__}.from_config(policy.noise_scheduler.config)",
                stacklevel=2,
            )
        scheduler = clipped_as(trained, scheduler)
        self._renew_sampler(scheduler=scheduler)
        self._noise_scheduler = scheduler

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Options of `scheduler.step` (eta, ...), read-only; set a new mapping to change them."""
        return MappingProxyType(self._loop.step_kwargs)

    @kwargs.setter
    def kwargs(self, step_kwargs: Mapping[str, Any]) -> None:
        self._renew_sampler(step_kwargs=step_kwargs)

    @property
    def n_action_steps(self) -> int:
        """How many actions of a predicted trajectory are executed; setting it decides the next call.

        Raises:
            ValueError: not a whole number, or more than the policy predicts from the current step on.
        """
        return self._n_action_steps

    @n_action_steps.setter
    def n_action_steps(self, count: int) -> None:
        most = self._trajectory_steps - self.chunk.start
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            raise ValueError(
                f"n_action_steps={count!r} is not possible: use 1 to {most}, as many as the policy predicts from now on"
            )
        self._n_action_steps = count

    def reset(self) -> None:
        """Begins a new episode. Nothing is kept between calls, so it does nothing; the original's loops call it."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the denoiser's parameters."""
        return self.model.pos_emb.dtype
