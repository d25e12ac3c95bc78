"""The denoiser as this package sees it: a Transformer whose residual branches can be called one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bac.blocks import BlockId, decoder_blocks, encoder_blocks, parse
from bac.errors import NoDenoiser

# branch(x [B, T, D], memory [B, S, D] or None) -> residual branch output [B, T, D]
Branch = Callable[[Tensor, "Tensor | None"], Tensor]


class Attention(Protocol):
    """Multi-head attention with the parameters of `torch.nn.MultiheadAttention`."""

    n_emb: int
    n_head: int
    in_proj_weight: Tensor  # [3 D, D]
    in_proj_bias: Tensor  # [3 D]
    out_proj: nn.Linear


class Layer(Protocol):
    """One pre-norm layer; `sa`, `ca` and `ffn` give the branch outputs without adding them to the residual stream."""

    cross: bool
    self_attn: Attention
    multihead_attn: Attention  # where `cross`
    linear1: nn.Linear
    linear2: nn.Linear
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm  # where `cross`
    ffn_norm: nn.LayerNorm
    dropout: Any

    def sa(self, x: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def ca(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def ffn(self, x: Tensor) -> Tensor: ...


class Stack(Protocol):
    """Layers in sequence."""

    layers: Sequence[Layer]

    def parameters(self) -> Any: ...


class Denoiser(Protocol):
    """A Transformer for diffusion (Chi et al., RSS 2023, section III-A), in its decoder or its encoder-only form.

    Attributes:
        horizon: T, the tokens of a trajectory; `T` counts the time token of the encoder-only form, too.
        T_cond: condition tokens: the time token and `n_obs_steps` observations.
        mask, memory_mask: additive masks of the attentions, None: every token sees all others.
        trunk: the stack whose residual branches are the blocks.
    """

    horizon: int
    T: int
    T_cond: int
    input_dim: int
    output_dim: int
    cond_dim: int
    n_obs_steps: int
    n_layer: int
    n_head: int
    n_emb: int
    n_cond_layers: int
    obs_as_cond: bool
    encoder_only: bool
    training: bool
    pos_emb: Tensor
    cond_pos_emb: Tensor
    mask: Tensor | None
    memory_mask: Tensor | None
    input_emb: nn.Linear
    cond_obs_emb: nn.Linear
    drop: nn.Dropout
    encoder: Any
    trunk: Stack
    ln_f: nn.LayerNorm
    head: nn.Linear

    def embed_time(self, timestep: Tensor | int, batch: int, device: torch.device) -> Tensor:
        """Timestep -> raw time token [B, 1, D]."""
        ...

    def encode_condition(self, time_token: Tensor, cond: Tensor | None) -> Tensor:
        """Raw time token [B, 1, D] and observations [B, To, Do] -> memory [B, 1 + To, D]."""
        ...

    def embed_trajectory(self, sample: Tensor, time_token: Tensor | None) -> Tensor:
        """Noisy trajectory [B, T, D_in] -> trunk input [B, T (+1 for the encoder-only time token), D]."""
        ...

    def masks(self, tokens: int, memory_tokens: int = 0) -> tuple[Tensor | None, Tensor | None]:
        """Masks of self- and cross-attention for the tokens in use."""
        ...

    def read_out(self, x: Tensor) -> Tensor:
        """Trunk output -> prediction [B, T, D_out]."""
        ...


# A few methods by which a denoiser is known; a Protocol cannot be asked about attributes that are set in __init__.
_METHODS = ("embed_time", "encode_condition", "embed_trajectory", "masks", "read_out", "trunk")


def model_blocks(model: Any) -> tuple[str, ...]:
    """Names of the denoiser's cacheable blocks in execution order.

    Raises:
        NoDenoiser: it is no denoiser whose blocks can be called one by one.
    """
    if not all(hasattr(model, name) for name in _METHODS):
        raise NoDenoiser(
            f"block-wise caching works on TransformerForDiffusion (DP-T); this policy's model is {type(model).__name__}"
        )
    return encoder_blocks(model.n_layer) if model.encoder_only else decoder_blocks(model.n_layer)


def layer_of(model: Denoiser, block: BlockId | str) -> Layer:
    """The layer a block belongs to."""
    block = parse(block) if isinstance(block, str) else block
    return model.trunk.layers[block.layer]


def _cross_attend(layer: Layer, x: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
    if memory is None:
        raise ValueError("a cross-attention needs condition tokens")
    return layer.ca(x, memory, mask)


def branch(model: Denoiser, name: str, mask: Tensor | None, memory_mask: Tensor | None) -> Branch:
    """The block as a function of the residual stream and the condition tokens."""
    block = parse(name)
    layer = layer_of(model, block)
    if block.kind == "sa":
        return lambda x, memory: layer.sa(x, mask)
    if block.kind == "ca":
        return partial(_cross_attend, layer, mask=memory_mask)
    return lambda x, memory: layer.ffn(x)
