"""The denoising loop of Diffusion Policy, one call of the model and one of the scheduler per step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.policy.sampler_inputs import SamplerInputs
from diffusion_policy.policy.schedulers import prepared

Generators = torch.Generator | Sequence[torch.Generator] | None
_AT_ONCE = 16


class Sampler(Protocol):
    """Whatever turns noise into a trajectory; `policy.sampler` is one, an accelerated runtime is another."""

    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """Trajectories [B, T, D] in normalised units, with noise of None, one generator, or one per sample."""
        ...


def draw_noise(shape: Sequence[int], like: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise [B, T, D] with the device and dtype of `like`.

    With one generator per sample (a list of B), a sample's noise does not depend on which batch it is in. As in
    diffusers, a CPU generator gives the same noise on every device: it is drawn on the CPU and moved.

    Raises:
        ValueError: a list of generators that are not B.
    """
    if generator is None or isinstance(generator, torch.Generator):
        source = like.device if generator is None else generator.device
        return torch.randn(tuple(shape), generator=generator, device=source, dtype=like.dtype).to(like.device)
    if len(generator) != shape[0]:
        raise ValueError(
            f"got {len(generator)} generators for a batch of {shape[0]}: pass one per sample, or a single one"
        )
    rows = [torch.randn((1, *shape[1:]), generator=g, device=g.device, dtype=like.dtype) for g in generator]
    return torch.cat(rows).to(like.device)


def draw_noises(count: int, like: Tensor, generator: Generators = None) -> Tensor:
    """`count` draws of `draw_noise`, one after the other, in one tensor [count, B, T, D]."""
    generators = None if generator is None or isinstance(generator, torch.Generator) else list(generator)
    devices = {item.device for item in generators or ()}
    if generators is not None and (len(generators) != len(like) or len(devices) != 1):
        return torch.stack([draw_noise(like.shape, like, generators) for _ in range(count)])
    if generators is None:
        generators = [generator]
        devices = {like.device if generator is None else generator.device}
    device, size = devices.pop(), like[0].numel() * (len(like) if len(generators) == 1 else 1)
    if device.type == "cpu" and like.dtype == torch.float32 and size % _AT_ONCE == 0:
        # PyTorch draws this many numbers at a time, so draws of whole multiples of them are those of one long draw.
        noises = torch.empty((len(generators), count, len(like) // len(generators), *like.shape[1:]))
        for part, own in zip(noises.unbind(), generators):
            part.normal_(generator=own)
        return noises.transpose(0, 1).flatten(1, 2).to(like.device)
    noises = torch.empty((count, *like.shape), device=device, dtype=like.dtype)
    parts = noises.view(count * len(generators), -1, *like.shape[1:]).unbind()
    for part, own in zip(parts, itertools.cycle(generators)):
        part.normal_(generator=own)
    return noises.to(like.device)


class DiffusionSampler:
    """Algorithm of Chi et al. 2023, equation (4): start from noise, denoise K times.

    Calls share nothing: each works on its own copy of the scheduler, so they may come from several threads at once.

    Args:
        model: denoiser called as model(trajectory [B, T, D], timestep, cond).
        scheduler: a diffusers scheduler; it is never altered. `schedulers.prepared` tells where diffusers' own differ.
        num_inference_steps: K.
        step_kwargs: passed on to `scheduler.step` (eta, ...).
    """

    def __init__(self, model: nn.Module, scheduler: Any, num_inference_steps: int, step_kwargs: dict | None = None):
        self.model, self.scheduler = model, scheduler
        self.num_inference_steps, self.step_kwargs = num_inference_steps, dict(step_kwargs or {})

    def prepared(self, device: torch.device | None = None) -> Any:
        """A scheduler of its own for one call, set to K steps. See `schedulers.prepared` for errors."""
        return prepared(self.scheduler, self.num_inference_steps, device)

    def noise(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Noise [B, T, D] like `like`; see `draw_noise`."""
        return draw_noise(like.shape, like, generator)

    def draw_many(self, count: int, like: Tensor, generator: Generators = None) -> Tensor:
        """`count` draws of `noise`, one after the other, as one tensor [count, B, T, D]."""
        return draw_noises(count, like, generator)

    def draw(
        self, like: Tensor, draws: Sequence[bool], generator: Generators = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The initial noise [B, T, D], not yet scaled, and the noise of each step that `draws`, else None.

        The numbers that a call with this generator would draw, in its order.
        """
        first, *rest = self.draw_many(1 + sum(draws), like, generator).unbind()
        noises = iter(rest)
        return first, [next(noises) if drawn else None for drawn in draws]

    def begin(self, scheduler: Any, known: Tensor, generator: Generators) -> Tensor:
        """The initial noise [B, T, D] for a prepared `scheduler`, of the shape, device and dtype of `known`."""
        return self.noise(known, generator) * scheduler.init_noise_sigma

    def step(
        self, scheduler: Any, prediction: Tensor, timestep: Tensor, trajectory: Tensor, generator: Generators
    ) -> Tensor:
        """One update x_t -> x_{t-1} [B, T, D] of a prepared `scheduler`, from the model's `prediction` [B, T, D]."""
        if generator is not None and not isinstance(generator, torch.Generator):
            generator = list(generator)  # diffusers knows no other sequence
        return scheduler.step(prediction, timestep, trajectory, generator=generator, **self.step_kwargs).prev_sample

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """Samples trajectories [B, T, D] in normalised units.

        Args:
            inputs: what is known of the batch; see `SamplerInputs`.
            generator: None, one generator, or one per sample.

        Raises:
            ValueError: the scheduler cannot take K steps, or there is not one generator per sample.
        """
        scheduler = self.prepared(inputs.known.device)
        trajectory = self.begin(scheduler, inputs.known, generator)
        for timestep in scheduler.timesteps:
            trajectory = inputs.impose(trajectory)
            prediction = self.model(scheduler.scale_model_input(trajectory, timestep), timestep, inputs.observation)
            trajectory = self.step(scheduler, prediction, timestep, trajectory, generator)
        return inputs.impose(trajectory)
