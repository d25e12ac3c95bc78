"""Pre-norm Transformer layers whose residual branches can be called one by one.

Parameter names and arithmetic are those of `torch.nn.TransformerDecoderLayer` / `TransformerEncoderLayer`
(batch_first, norm_first, GELU), so original checkpoints load. Unlike those modules, every branch is a method that
returns the *branch output* without adding it to the residual stream: that output is what block-wise caching stores and
reuses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.diffusion.dropout import Dropout, dropout


class MultiheadAttention(nn.Module):
    """Multi-head attention with the parameter names of `torch.nn.MultiheadAttention`, on fused SDPA kernels."""

    def __init__(self, n_emb: int, n_head: int, p_drop: float):
        super().__init__()
        if n_emb % n_head:
            raise ValueError(f"n_emb={n_emb} must be divisible by n_head={n_head}")
        self.n_emb, self.n_head, self.p_drop = n_emb, n_head, p_drop
        self.in_proj_weight = nn.Parameter(torch.empty(3 * n_emb, n_emb))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * n_emb))
        self.out_proj = nn.Linear(n_emb, n_emb)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, heads, T, D / heads]"""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of projected q [B, H, T, Dh] over k, v [B, H, S, Dh], then the output projection -> [B, T, D]."""
        if self.training:
            # Written out: on a CPU the backward pass of the fused kernel is 7x slower for 16 tokens in bfloat16.
            scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
            weights = (scores if mask is None else scores + mask).softmax(dim=-1).to(v.dtype)
            y = torch.matmul(dropout(weights, self.p_drop, self.training), v)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(y.transpose(1, 2).flatten(-2))

    def self_attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, D] over itself, under an additive mask [T, T] -> [B, T, D]."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (self.split_heads(part) for part in qkv.chunk(3, dim=-1))
        return self.attend(q, k, v, mask)

    def project_query(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> queries [B, heads, T, D / heads]."""
        d = self.n_emb
        return self.split_heads(F.linear(x, self.in_proj_weight[:d], self.in_proj_bias[:d]))

    def project_key_value(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory [B, S, D] -> keys and values, each [B, heads, S, D / heads]."""
        d = self.n_emb
        k, v = F.linear(memory, self.in_proj_weight[d:], self.in_proj_bias[d:]).chunk(2, dim=-1)
        return self.split_heads(k), self.split_heads(v)

    def cross_attention(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, D] over memory [B, S, D], under an additive mask [T, S] -> [B, T, D]."""
        return self.attend(self.project_query(x), *self.project_key_value(memory), mask)


class TransformerLayer(nn.Module):
    """One pre-norm layer: self-attention, optional cross-attention, feed-forward.

    With `cross=True` the modules are named as in a PyTorch decoder layer (norm1 SA, norm2 CA, norm3 FFN), otherwise as
    in an encoder layer (norm1 SA, norm2 FFN).
    """

    def __init__(self, n_emb: int, n_head: int, p_drop: float, cross: bool):
        super().__init__()
        self.cross = cross
        self.self_attn = MultiheadAttention(n_emb, n_head, p_drop)
        if cross:
            self.multihead_attn = MultiheadAttention(n_emb, n_head, p_drop)
        self.linear1 = nn.Linear(n_emb, 4 * n_emb)
        self.linear2 = nn.Linear(4 * n_emb, n_emb)
        self.norm1 = nn.LayerNorm(n_emb)
        self.norm2 = nn.LayerNorm(n_emb)
        if cross:
            self.norm3 = nn.LayerNorm(n_emb)
        self.dropout = Dropout(p_drop)

    @property
    def ffn_norm(self) -> nn.LayerNorm:
        """The norm before the feed-forward branch, whose name depends on the kind of layer."""
        return self.norm3 if self.cross else self.norm2

    def sa(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention branch of x [B, T, D]."""
        return self.dropout(self.self_attn.self_attention(self.norm1(x), mask))

    def ca(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Cross-attention branch of x [B, T, D] over memory [B, S, D]."""
        return self.dropout(self.multihead_attn.cross_attention(self.norm2(x), memory, mask))

    def ffn(self, x: Tensor) -> Tensor:
        """Feed-forward branch of x [B, T, D]."""
        hidden = self.dropout(F.gelu(self.linear1(self.ffn_norm(x))))
        return self.dropout(self.linear2(hidden))

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """x [B, T, D] after all branches; `memory` [B, S, D] and its mask [T, S] only with `cross`."""
        x = x + self.sa(x, mask)
        if self.cross:
            x = x + self.ca(x, memory, memory_mask)
        return x + self.ffn(x)


class TransformerStack(nn.Module):
    """Layers in sequence under the name `layers`, as in PyTorch's Transformer containers; no final norm."""

    def __init__(self, n_layer: int, n_emb: int, n_head: int, p_drop: float, cross: bool):
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(n_emb, n_head, p_drop, cross) for _ in range(n_layer))

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """x [B, T, D] after all layers; arguments are those of a layer."""
        for layer in self.layers:
            x = layer(x, memory, mask, memory_mask)
        return x
