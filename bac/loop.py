"""What the runtimes ask of a policy: its denoising loop, and the inputs of one call.

Both are met by shape, not by class, so that this package needs no policy's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from bac.denoiser import Denoiser

#: None, one generator, or one per sample
Generators = torch.Generator | Sequence[torch.Generator] | None
Self = TypeVar("Self", bound="SamplerInputs")


class SamplerInputs(Protocol):
    """What is known of B action chunks before they are denoised, in normalised units, on one device.

    Attributes:
        known: trajectory entries [B, T, D]; the sampled trajectory has this shape, device and dtype.
        mask: boolean [B, T, D], where `known` holds at every step (inpainting); None: nowhere.
        observation: observations [B, To, Do] for the condition tokens; None when inpainting.
    """

    @property
    def known(self) -> Tensor: ...

    @property
    def mask(self) -> Tensor | None: ...

    @property
    def observation(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self: Self, rows: slice) -> Self: ...

    def clone(self: Self) -> Self:
        """A copy of all tensors."""
        ...

    def head(self: Self, tokens: int | None) -> Self:
        """What is known of the first `tokens` tokens of each trajectory; None: of all."""
        ...

    def impose(self, trajectory: Tensor) -> Tensor:
        """`trajectory` [B, T, D] with the known entries in their places."""
        ...


@runtime_checkable
class DenoisingLoop(Protocol):
    """A policy's own denoising loop: Chi et al. 2023, equation (4), one step after the other.

    Attributes:
        model: the denoiser.
        scheduler: a diffusers scheduler; it is never altered.
        num_inference_steps: K.
        step_kwargs: further arguments of `scheduler.step` (eta, ...).

    A loop may have `solver()`, its arithmetic as a table (see `bac.solver`); else that is read from its scheduler. It
    may have `draw_many(count, like, generator)`, that many draws of `noise` as one tensor, which is faster than `draw`.
    """

    @property
    def model(self) -> Any: ...

    @property
    def scheduler(self) -> Any: ...

    @property
    def num_inference_steps(self) -> int: ...

    @property
    def step_kwargs(self) -> Mapping[str, Any]: ...

    def prepared(self, device: torch.device | None = None) -> Any:
        """A scheduler of its own for one call, set to K steps."""
        ...

    def noise(self, like: Tensor, generator: Generators = None) -> Tensor:
        """Standard normal noise of the shape, device and dtype of `like` [B, T, D]."""
        ...

    def draw(
        self, like: Tensor, draws: Sequence[bool], generator: Generators = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise like `like`, before the scheduler scales it, and noise for each step that `draws`, else None.

        In the order in which one call draws them.
        """
        ...

    def begin(self, scheduler: Any, known: Tensor, generator: Generators) -> Tensor:
        """The initial noise for a prepared `scheduler`."""
        ...

    def step(
        self, scheduler: Any, prediction: Tensor, timestep: Tensor, trajectory: Tensor, generator: Generators
    ) -> Tensor:
        """One update x_t -> x_{t-1} of a prepared `scheduler`."""
        ...


class Policy(Protocol):
    """A policy whose denoising loop can be replaced.

    Attributes:
        sampler: the denoising loop that `predict_action` calls; it may give fewer tokens than it takes, from the first
            to the last of those executed.
        noise_scheduler: the checkpoint's own scheduler.
        chunk: where the executed actions lie in its trajectory. Without it all tokens are denoised (see `bac.horizon`).
        obs_encoder, acting_encoder: of an image policy, the module that encodes observations, and what does that in its
            place if it is not None (see `bac.acting_encoder`). Without them the policy's own encoder runs.
    """

    model: Any
    sampler: Any
    chunk: slice

    @property
    def noise_scheduler(self) -> Any: ...

    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]: ...

    def weights_hash(self) -> str:
        """Identity of the weights as they are now."""
        ...


def check_inputs(inputs: SamplerInputs, model: Denoiser) -> None:
    """Refuses inputs that do not fit the denoiser.

    Raises:
        ValueError: naming what does not, and the shape it must have.
    """
    known, observation = inputs.known, inputs.observation
    if known.shape[1] > model.horizon or known.shape[2] != model.input_dim:
        raise ValueError(
            f"known has shape {tuple(known.shape)}, this model denoises [B, up to {model.horizon}, {model.input_dim}]"
        )
    if not model.obs_as_cond:
        return
    expected = f"[{len(known)}, up to {model.n_obs_steps}, {model.cond_dim}]"
    if observation is None:
        raise ValueError(f"this model is conditioned on observations: give inputs.observation {expected}")
    if observation.shape[2] != model.cond_dim or observation.shape[1] > model.n_obs_steps:
        raise ValueError(f"observation has shape {tuple(observation.shape)}, expected {expected}")
