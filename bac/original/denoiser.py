"""The original project's `TransformerForDiffusion` as a `bac.denoiser.Denoiser`, known by its parameter names.

It is made of PyTorch's own `nn.TransformerDecoder` and `nn.TransformerEncoder`. What is here only looks at it: modules
and parameters stay the model's own, sizes are those of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bac.errors import NoDenoiser
from bac.known_modules import UnknownModule

_PARTS = ("input_emb", "pos_emb", "drop", "time_emb", "encoder", "ln_f", "head")
_LAYERS = (nn.TransformerDecoder, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerEncoderLayer)
_ATTENTION = (nn.MultiheadAttention, nn.modules.linear.NonDynamicallyQuantizableLinear)


class AttentionFace:
    """`nn.MultiheadAttention` as a `bac.denoiser.Attention`."""

    def __init__(self, attention: nn.MultiheadAttention):
        self.n_emb, self.n_head = attention.embed_dim, attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj


class LayerFace:
    """A pre-norm layer of PyTorch's as a `bac.denoiser.Layer`: its branches are methods there, too."""

    def __init__(self, layer: Any, cross: bool):
        self.own, self.cross = layer, cross
        self.self_attn = AttentionFace(layer.self_attn)
        self.linear1, self.linear2, self.dropout = layer.linear1, layer.linear2, layer.dropout
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.ffn_norm = layer.norm3 if cross else layer.norm2
        if cross:
            self.multihead_attn, self.norm3 = AttentionFace(layer.multihead_attn), layer.norm3

    def sa(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.own._sa_block(self.norm1(x), mask, None)

    def ca(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.own._mha_block(self.norm2(x), memory, mask, None)

    def ffn(self, x: Tensor) -> Tensor:
        return self.own._ff_block(self.ffn_norm(x))


class StackFace:
    """A stack of them."""

    def __init__(self, stack: Any, cross: bool):
        self.own = stack
        self.layers = [LayerFace(layer, cross) for layer in stack.layers]

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.own.parameters()


class DenoiserFace:
    """A model with the original's parameter names; see `bac.denoiser.Denoiser` for attributes.

    Raises:
        NoDenoiser: it has not; naming what it lacks.
        UnknownModule: it has a hook or a replaced `forward`, which the runtimes would bypass.
    """

    #: classes besides the project's own whose arithmetic the runtimes do themselves
    known_modules = frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in (*_LAYERS, *_ATTENTION))

    def __init__(self, model: nn.Module):
        _check_parts(model)
        whole: Any = model
        self.own = model
        self.encoder_only = getattr(model, "decoder", None) is None
        stack = whole.encoder if self.encoder_only else whole.decoder
        _check_stack(stack)
        self.trunk = StackFace(stack, cross=not self.encoder_only)
        self.input_emb, self.drop, self.time_emb = whole.input_emb, whole.drop, whole.time_emb
        self.encoder, self.ln_f, self.head = whole.encoder, whole.ln_f, whole.head
        self.pos_emb, self.cond_pos_emb = whole.pos_emb, getattr(model, "cond_pos_emb", None)
        self.cond_obs_emb = getattr(model, "cond_obs_emb", None)
        self.mask, self.memory_mask = getattr(model, "mask", None), getattr(model, "memory_mask", None)
        self.obs_as_cond = self.cond_obs_emb is not None
        self.cond_dim = self.cond_obs_emb.in_features if self.cond_obs_emb is not None else 0
        self.input_dim, self.output_dim = whole.input_emb.in_features, whole.head.out_features
        self.T, self.n_emb = whole.pos_emb.shape[1:]
        self.horizon = self.T - int(self.encoder_only)
        self.T_cond = 0 if self.cond_pos_emb is None else self.cond_pos_emb.shape[1]
        self.n_obs_steps = self.T_cond - 1 if self.obs_as_cond else self.horizon
        self.n_layer, self.n_head = len(self.trunk.layers), self.trunk.layers[0].self_attn.n_head
        layers = getattr(whole.encoder, "layers", ())
        self.n_cond_layers = 0 if self.encoder_only else len(layers)

    # ---- as a module ----
    @property
    def training(self) -> bool:
        return self.own.training

    def modules(self) -> Iterator[nn.Module]:
        return self.own.modules()

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Those whose arithmetic the runtimes do themselves: all but the model as a whole, which was compared with
        this, and its time embedding, which is called.
        """
        for name, module in self.own.named_modules():
            if name and name.split(".")[0] != "time_emb":
                yield name, module

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.own.parameters()

    def __call__(self, sample: Tensor, timestep: Tensor | int, cond: Tensor | None = None) -> Tensor:
        """The model's own forward: sample [B, T, D_in], cond [B, To, Do] -> prediction [B, T, D_out]."""
        return self.own(sample, timestep, cond)

    # ---- parts of a forward ----
    def embed_time(self, timestep: Tensor | int, batch: int, device: torch.device) -> Tensor:
        timesteps = torch.as_tensor(timestep, device=device).reshape(-1).expand(batch)
        return self.time_emb(timesteps).to(self.pos_emb.dtype).unsqueeze(1)

    def encode_condition(self, time_token: Tensor, cond: Tensor | None) -> Tensor:
        assert self.cond_pos_emb is not None
        tokens = time_token
        if self.cond_obs_emb is not None:
            if cond is None:
                raise ValueError("this model is conditioned on observations: pass cond [B, To, cond_dim]")
            tokens = torch.cat([tokens, self.cond_obs_emb(cond)], dim=1)
        return self.encoder(self.drop(tokens + self.cond_pos_emb[:, : tokens.shape[1]]))

    def embed_trajectory(self, sample: Tensor, time_token: Tensor | None) -> Tensor:
        x = self.input_emb(sample)
        if self.encoder_only:
            assert time_token is not None
            x = torch.cat([time_token, x], dim=1)
        return self.drop(x + self.pos_emb[:, : x.shape[1]])

    def masks(self, tokens: int, memory_tokens: int = 0) -> tuple[Tensor | None, Tensor | None]:
        mask = None if self.mask is None else self.mask[:tokens, :tokens]
        memory_mask = None if self.memory_mask is None else self.memory_mask[:tokens, :memory_tokens]
        return mask, memory_mask

    def read_out(self, x: Tensor) -> Tensor:
        return self.head(self.ln_f(x[:, 1:] if self.encoder_only else x))


def _check_parts(model: nn.Module) -> None:
    name = type(model).__name__
    missing = [part for part in _PARTS if getattr(model, part, None) is None]
    if missing:
        raise NoDenoiser(
            f"block-wise caching needs a transformer (DP-T); this policy's {name} has no {', '.join(missing)}. "
            "What makes a U-Net faster is fewer steps: policy.noise_scheduler = "
            "DDIMScheduler.from_config(policy.noise_scheduler.config), policy.num_inference_steps = 16"
        )
    if model._forward_hooks or model._forward_pre_hooks or "forward" in vars(model):
        what = "a replaced method forward()" if "forward" in vars(model) else "a forward hook"
        raise UnknownModule(
            f"the model has {what}, which block-wise caching would bypass: take it off, or use the policy plainly"
        )


def _check_stack(stack: Any) -> None:
    layers = list(getattr(stack, "layers", ()))
    known = (nn.TransformerDecoderLayer, nn.TransformerEncoderLayer)
    if not layers or not all(isinstance(layer, known) for layer in layers):
        raise NoDenoiser(
            f"the denoiser's layers are no nn.TransformerDecoderLayer or nn.TransformerEncoderLayer (it has a "
            f"{type(stack).__name__}): cache it in its own loop, bac.cache(model, schedule)"
        )
    if getattr(stack, "norm", None) is not None:
        raise NoDenoiser(f"the {type(stack).__name__} has a final norm of its own, which DP-T has not")
    for layer in layers:
        if not layer.norm_first or not layer.self_attn.batch_first:
            raise NoDenoiser("the layers have to be pre-norm (norm_first=True) and batch_first=True, as in DP-T")
        if layer.activation is not F.gelu and not _is_gelu(layer.activation):
            raise NoDenoiser("the layers' activation has to be GELU without approximation, as in DP-T")


def _is_gelu(activation: Any) -> bool:
    return isinstance(activation, nn.GELU) and activation.approximate == "none"
