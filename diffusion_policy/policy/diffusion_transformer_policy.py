"""What Transformer Diffusion Policies on different observations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.common.distinct_weights import weights_hash
from diffusion_policy.common.errors import InputError
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.mask_generator import LowdimMaskGenerator
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.denoising_targets import draw_timesteps, prediction_target
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators, Sampler
from diffusion_policy.policy.observation_checks import all_finite, checked_observation, unit_images
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from diffusion_policy.policy.settable import SettablePolicy

#: normalised observations lie in [-1, 1] on the data seen in training; single precision ends far above this
_LARGEST_FEATURE = 1e6


class DiffusionTransformerPolicy(SettablePolicy):
    """Generates action chunks by denoising a trajectory of T = `horizon` elements.

    Observations condition the denoiser either as tokens (`obs_as_cond`) or by inpainting: the trajectory then holds
    [action, observation] and the observed part of its first `n_obs_steps` elements is known. With
    `pred_action_steps_only` the trajectory is exactly the executed chunk. A subclass says what `encode` makes of
    normalised observations.

    `sampler` is the denoising loop and may be replaced by another `Sampler` (that is how the policy is accelerated).

    As in the original project, `num_inference_steps`, `noise_scheduler`, `kwargs` and `n_action_steps` may be set on a
    finished policy and decide the next call. What cannot be changed is refused with an AttributeError, as is a name
    that is almost one of these.

    Attributes:
        obs_shapes: name -> shape of one observation, in the environment's units; batches are [B, To, *shape].
        cameras: the names among them that are images [C, H, W], uint8 or in [0, 1].
        obs_dim: Do, the size of an encoded observation.
        acting_encoder: does in `predict_action` what `encode` does, while the policy is accelerated; else None.

    Raises:
        ValueError: the sizes, the kind of conditioning and the number of denoising steps do not fit together.
    """

    def __init__(
        self,
        model: TransformerForDiffusion,
        noise_scheduler: Any,
        horizon: int,
        obs_shapes: dict[str, tuple[int, ...]],
        cameras: tuple[str, ...],
        obs_dim: int,
        action_dim: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None,
        obs_as_cond: bool,
        pred_action_steps_only: bool,
        step_kwargs: dict[str, Any],
    ):
        super().__init__()
        if pred_action_steps_only and not obs_as_cond:
            raise ValueError("pred_action_steps_only needs obs_as_cond: inpainting needs all of the trajectory")
        if not pred_action_steps_only and n_obs_steps - 1 + n_action_steps > horizon:
            raise ValueError(
                f"n_obs_steps - 1 + n_action_steps = {n_obs_steps - 1 + n_action_steps} exceeds horizon = {horizon}"
            )
        self.model = model
        self._noise_scheduler = noise_scheduler
        self.mask_generator = LowdimMaskGenerator(action_dim, 0 if obs_as_cond else obs_dim, n_obs_steps)
        self.normalizer = LinearNormalizer()
        self.obs_shapes, self.cameras = obs_shapes, cameras
        self.horizon, self.obs_dim, self.action_dim = horizon, obs_dim, action_dim
        self._n_action_steps, self.n_obs_steps = n_action_steps, n_obs_steps
        self.obs_as_cond, self.pred_action_steps_only = obs_as_cond, pred_action_steps_only
        self._dummy_variable = nn.Parameter(torch.empty(0))  # named in original checkpoints
        self._trajectory_steps = n_action_steps if pred_action_steps_only else horizon
        steps = noise_scheduler.config.num_train_timesteps if num_inference_steps is None else num_inference_steps
        self.sampler: Sampler = DiffusionSampler(model, noise_scheduler, steps, step_kwargs)
        self.acting_encoder: Callable[[dict[str, Tensor]], Tensor] | None = None
        self._check_steps(steps)

    def weights_hash(self) -> str:
        """See `diffusion_policy.common.distinct_weights.weights_hash`; computed from the weights as they are now."""
        return weights_hash(self)

    def encode(self, nobs: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do].

        `generator` decides about random augmentation in training.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """The device of the policy's parameters."""
        return self._dummy_variable.device

    @property
    def chunk(self) -> slice:
        """Where the executed action chunk lies in the predicted trajectory."""
        start = 0 if self.pred_action_steps_only else self.n_obs_steps - 1
        return slice(start, start + self.n_action_steps)

    @property
    def trajectory_shape(self) -> tuple[int, int]:
        """(T, D) of the denoised trajectory."""
        return self._trajectory_steps, self.action_dim + (0 if self.obs_as_cond else self.obs_dim)

    @property
    def field_sizes(self) -> dict[str, int]:
        """Sizes of the normalizer's fields; a camera has one scale for all its pixels."""
        sizes = {name: 1 if name in self.cameras else shape[0] for name, shape in self.obs_shapes.items()}
        return {"action": self.action_dim, **sizes}

    # ---- inference ----
    @torch.no_grad()
    def encode_observation(self, obs_dict: dict[str, Tensor]) -> Tensor:
        """Checks, normalises and encodes observations [B, >= To, *shape] by name -> [B, To, Do].

        Raises:
            ValueError: an observation is missing, has another shape, or is far from those seen in training.
        """
        obs = {
            name: checked_observation(obs_dict, name, shape, self.n_obs_steps, self.device, name in self.cameras)
            for name, shape in self.obs_shapes.items()
        }
        sizes = {name: len(value) for name, value in obs.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"observations are of different batch sizes: {sizes}")
        if 0 in sizes.values():
            raise InputError("the batch of observations is empty: give at least one")
        encode = self.encode if self.acting_encoder is None else self.acting_encoder
        features = encode(self.normalizer.normalize(obs))
        largest = features.abs().max().item()
        if not largest <= _LARGEST_FEATURE:  # also where it is NaN
            raise InputError(
                f"an observation is {largest:.3g} once normalised, where those seen in training lie in [-1, 1]: "
                "check its units and the sensor"
            )
        return features

    def sampler_inputs(self, obs_dict: dict[str, Tensor]) -> SamplerInputs:
        """Observations [B, To, *shape] by name, in the environment's units -> what `sampler` takes.

        Raises:
            ValueError: see `encode_observation`.
        """
        features = self.encode_observation(obs_dict)
        known = features.new_zeros(features.shape[0], *self.trajectory_shape)
        if self.obs_as_cond:
            return SamplerInputs(known, observation=features)
        known[:, : self.n_obs_steps, self.action_dim :] = features
        return SamplerInputs(known, self.mask_generator(known.shape))

    def decode(self, sample: Tensor) -> dict[str, Tensor]:
        """Denoised trajectories [B, T, D], in normalised units -> what `predict_action` returns.

        An accelerated sampler may have left out tokens behind the executed chunk.

        Raises:
            ValueError: an entry is not finite.
            RuntimeError: the sampler left out tokens of the executed chunk.
        """
        if sample.shape[1] < self.chunk.stop:
            raise RuntimeError(
                f"the executed chunk ends at token {self.chunk.stop} and the sampler denoises {sample.shape[1]}: "
                "n_action_steps was set after accelerate(), call accelerate() again"
            )
        if not all_finite(sample):
            rows = (~torch.isfinite(sample).flatten(1).all(1)).nonzero().flatten().tolist()
            raise InputError(
                f"the sampled actions of batch rows {rows[:8]} are not finite: the weights or the sampler's settings "
                "are not sound (another number of steps, or precision=fp32)"
            )
        action_pred = self.normalizer["action"].unnormalize(sample[..., : self.action_dim])
        return {"action": action_pred[:, self.chunk], "action_pred": action_pred}

    @torch.no_grad()
    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """Observation -> action chunk.

        Args:
            obs_dict: [B, To, *shape] by name, in the environment's units; images uint8, or floating in [0, 1].
            generator: None, a torch.Generator, or one per sample.

        Returns:
            'action' [B, n_action_steps, Da] to execute and 'action_pred' [B, T, Da], in the environment's units; when
            inpainting also 'obs_pred' [B, T, Do] and its executed part 'action_obs_pred'. While the policy is
            accelerated 'action_pred' may end with the executed chunk.

        Raises:
            ValueError: the observations do not fit (see `encode_observation`), or the actions are not finite.
        """
        return self.decode(self.sampler(self.sampler_inputs(obs_dict), generator))

    def random_observation(self, batch: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations [B, To, *shape] by name, in the environment's units: for timing and comparisons.

        They are uniform within the limits seen in training.
        """

        def draw(name: str, shape: tuple[int, ...]) -> Tensor:
            stats = self.normalizer[name].input_stats
            uniform = torch.rand(batch, self.n_obs_steps, *shape, generator=generator)
            return stats["min"] + uniform.to(stats["min"]) * (stats["max"] - stats["min"])

        return {name: draw(name, shape) for name, shape in self.obs_shapes.items()}

    # ---- training ----
    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        """Takes over how the policy's own fields are normalised; a data set may hold others.

        Raises:
            KeyError: `normalizer` lacks one of them.
        """
        own = LinearNormalizer({name: normalizer[name] for name in self.field_sizes})
        self.normalizer.load_state_dict(own.state_dict())
        self.normalizer.to(self.device)  # fields that were new are where they came from

    def optimizer_groups(self, weight_decay: float) -> list[dict]:
        """AdamW parameter groups of the denoiser; see `TransformerForDiffusion.optimizer_groups`."""
        return self.model.optimizer_groups(weight_decay)

    def compute_loss(
        self,
        batch: dict[str, Tensor],
        generator: torch.Generator | None = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """`denoising_loss` of a batch, with its other arguments.

        Args:
            batch: 'action' [B, T, Da] and every observation [B, T, *shape] by its name, in the environment's units.
                With `obs_as_cond` only the first To steps of the observations are looked at.

        Returns:
            A scalar.

        Raises:
            ValueError: images are neither uint8 nor in [0, 1], or see `denoising_loss`.
        """
        steps = self.n_obs_steps if self.obs_as_cond else None
        obs = {name: batch[name][:, :steps] for name in self.obs_shapes}
        obs = {name: unit_images(name, value) if name in self.cameras else value for name, value in obs.items()}
        features = self.encode(self.normalizer.normalize(obs), generator)
        return self.denoising_loss(features, batch["action"], generator, snr_gamma, noise_draws)

    def denoising_loss(
        self,
        features: Tensor,
        action: Tensor,
        generator: torch.Generator | None = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """Denoising loss (Ho et al. 2020, eq. 14).

        Args:
            features: [B, To, Do] as of `encode`; [B, T, Do] when inpainting.
            action: [B, T, Da], in the environment's units.
            snr_gamma: draw the timesteps in proportion to `min_snr_weights`: the expected loss is the one weighed so,
                at a smaller variance than weighing what is drawn alike. None: all alike.
            noise_draws: how many timesteps and noises to draw for each window; the observations are encoded once.

        Returns:
            The mean squared error in normalised units, a scalar.

        Raises:
            ValueError: the scheduler's prediction_type is not supported.
        """
        trajectory, observation = self.normalizer["action"].normalize(action), None
        if self.obs_as_cond:
            observation = features
            if self.pred_action_steps_only:
                start = self.n_obs_steps - 1
                trajectory = trajectory[:, start : start + self._trajectory_steps]
        else:
            trajectory = torch.cat([trajectory, features], dim=-1)

        if noise_draws > 1:
            trajectory = trajectory.repeat(noise_draws, 1, 1)
            observation = None if observation is None else observation.repeat(noise_draws, 1, 1)
        noise = torch.randn(trajectory.shape, generator=generator, device=trajectory.device)
        scheduler = self.noise_scheduler
        timesteps = draw_timesteps(scheduler, len(trajectory), noise.device, generator, snr_gamma)
        target = prediction_target(scheduler, trajectory, noise, timesteps)
        known = self.mask_generator(trajectory.shape)
        noisy = torch.where(known, trajectory, scheduler.add_noise(trajectory, noise, timesteps))
        prediction = self.model(noisy, timesteps, observation)
        return (F.mse_loss(prediction.float(), target, reduction="none") * ~known).mean()
