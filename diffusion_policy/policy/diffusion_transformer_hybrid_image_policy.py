"""Transformer Diffusion Policy on camera images together with low-dimensional observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.common.config import ConfigError
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.model.vision.observation_encoder import ObservationEncoder
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy


class DiffusionTransformerHybridImagePolicy(DiffusionTransformerPolicy):
    """Acts on observations by name; a ResNet-18 per camera makes them condition tokens.

    See `DiffusionTransformerPolicy` for what policies share. Arguments and defaults are those of the original class of
    this name (its configs: group norm, fixed crop).

    Args:
        shape_meta: {'obs': {name: {'shape': [...], 'type': 'rgb' or 'low_dim' (default)}}, 'action': {'shape': [Da]}}.
            Features are concatenated in this order.
        crop_shape: (height, width) of the part of an image that is looked at: anywhere in training; None: all of it.
        obs_encoder_group_norm: group instead of batch normalisation.
        eval_fixed_crop: in evaluation look at the centre; otherwise crops are random in evaluation, too, and only
            PyTorch's global seed repeats them.
        obs_as_cond: False: observations are not tokens but inpainted, as in `DiffusionTransformerPolicy`; the encoded
            observation of the first `n_obs_steps` elements is known, and the trajectory is [action, features]. Such a
            policy acts, but cannot be trained.
        step_kwargs: go to `scheduler.step`.

    Raises:
        ValueError: `shape_meta`, the crop or the sizes do not fit together.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        noise_scheduler: Any,
        horizon: int,
        n_action_steps: int,
        n_obs_steps: int,
        num_inference_steps: int | None = None,
        crop_shape: Sequence[int] | None = (76, 76),
        obs_encoder_group_norm: bool = False,
        eval_fixed_crop: bool = False,
        n_layer: int = 8,
        n_cond_layers: int = 0,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
        time_as_cond: bool = True,
        obs_as_cond: bool = True,
        pred_action_steps_only: bool = False,
        **step_kwargs: Any,
    ):
        obs_shapes, cameras, action_dim = parse_shape_meta(shape_meta)
        crop = None if crop_shape is None else _sizes(crop_shape, 2, "crop_shape")
        encoder = ObservationEncoder(obs_shapes, cameras, crop, obs_encoder_group_norm, eval_fixed_crop)
        width, cond_dim = (action_dim, encoder.output_dim) if obs_as_cond else (action_dim + encoder.output_dim, 0)
        model = TransformerForDiffusion(
            width,
            width,
            horizon,
            n_obs_steps,
            cond_dim,
            n_layer,
            n_head,
            n_emb,
            p_drop_emb,
            p_drop_attn,
            causal_attn,
            time_as_cond,
            obs_as_cond,
            n_cond_layers,
        )
        super().__init__(
            model,
            noise_scheduler,
            horizon,
            obs_shapes,
            cameras,
            encoder.output_dim,
            action_dim,
            n_action_steps,
            n_obs_steps,
            num_inference_steps,
            obs_as_cond,
            pred_action_steps_only,
            step_kwargs,
        )
        self.obs_encoder = encoder

    def encode(self, nobs: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do].

        `generator` decides where random crops lie.
        """
        batch_shape = nobs[next(iter(self.obs_shapes))].shape[:2]
        frames = {name: value.flatten(0, 1) for name, value in nobs.items()}  # [B To, *shape]
        return self.obs_encoder(frames, generator).unflatten(0, batch_shape)  # [B, To, Do]

    def optimizer_groups(self, weight_decay: float, encoder_weight_decay: float = 1e-6) -> list[dict]:
        """As for the low-dimensional policy, with a group for the vision encoder.

        Raises:
            ConfigError: the policy inpaints, and then cannot be trained.
        """
        self._check_trainable()
        encoder = {"params": list(self.obs_encoder.parameters()), "weight_decay": encoder_weight_decay}
        return [*super().optimizer_groups(weight_decay), encoder]

    def denoising_loss(self, *arguments: Any, **settings: Any) -> Tensor:
        """As in `DiffusionTransformerPolicy`.

        Raises:
            ConfigError: the policy inpaints, and then cannot be trained.
        """
        self._check_trainable()
        return super().denoising_loss(*arguments, **settings)

    def _check_trainable(self) -> None:
        if not self.obs_as_cond:
            raise ConfigError(
                "obs_as_cond=False does not go with training on images: the features would be the target as well as "
                "the input, so the loss cannot train the vision encoder. Use obs_as_cond=True"
            )


def parse_shape_meta(shape_meta: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...], int]:
    """-> observation shapes by name, the names that are cameras, Da.

    Raises:
        ValueError: an entry is missing or is not of the form that `DiffusionTransformerHybridImagePolicy` describes.
    """
    try:
        observations, action = dict(shape_meta["obs"]), shape_meta["action"]["shape"]
        entries = {name: (entry["shape"], entry.get("type", "low_dim")) for name, entry in observations.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            "shape_meta needs {'obs': {name: {'shape': [...], 'type': 'rgb' or 'low_dim'}, ...}, "
            "'action': {'shape': [...]}}"
        ) from error
    if not entries:
        raise ValueError("shape_meta names no observation: a policy needs at least one")
    shapes = {}
    for name, (shape, kind) in entries.items():
        if kind not in ("rgb", "low_dim"):
            raise ValueError(f"shape_meta: {name} is of type {kind!r}, which is not supported: use 'rgb' or 'low_dim'")
        if name == "action":
            raise ValueError("shape_meta: an observation cannot be named 'action'")
        shapes[name] = _sizes(shape, 3 if kind == "rgb" else 1, f"shape_meta: the shape of {name} ({kind})")
    cameras = tuple(name for name, (_, kind) in entries.items() if kind == "rgb")
    return shapes, cameras, _sizes(action, 1, "shape_meta: the shape of action")[0]


def _sizes(values: Any, count: int, what: str) -> tuple[int, ...]:
    sizes = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if len(sizes) != count or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"{what} is {values!r}; it has to be {count} positive whole number{'s' if count > 1 else ''}")
    return sizes
