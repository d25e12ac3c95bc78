"""Weights as the native library reads them: panels of 16 columns, in one of its formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bac.denoiser import Attention
from bac.native.structs import DTYPES, FORMATS, LANES, Keep, Matrix, array, round_up


def is_half(weight: Tensor) -> bool:
    """Whether half precision holds every weight, as it does those of a checkpoint stored that way."""
    return bool((weight.to(torch.float16).to(torch.float32) == weight).all())


def block_matrices(model: Any) -> list[Tensor]:
    """The weights of all self-attentions and feed-forward networks: what a denoising step reads most of."""
    return [
        weight
        for layer in model.trunk.layers
        for weight in (
            layer.self_attn.in_proj_weight,
            *(linear.weight for linear in (layer.self_attn.out_proj, layer.linear1, layer.linear2)),
        )
    ]


def pack(weight: Tensor, bias: Tensor, keep: Keep, form: str) -> Matrix:
    """Linear weight [n, k] -> panels [n / 16][k][16], zero-padded, in one of `FORMATS`.

    `bfloat` rounds to the nearest; two rows lie side by side there, [n / 16][k / 2][16][2]. `byte` rounds each output
    channel to 255 levels from minus to plus its largest weight; four rows lie side by side, [n / 16][k / 4][16][4].
    """
    n, k = weight.shape
    padded = torch.zeros(round_up(n), k)
    padded[:n] = weight.detach()
    padded_bias = torch.zeros(round_up(n))
    padded_bias[:n] = bias.detach()
    scale = sums = None
    if form == "byte":
        step = padded.abs().amax(1) / 127
        padded = (padded / step.clamp(min=torch.finfo().tiny)[:, None]).round()
        scale, sums = keep(step), keep(padded.sum(1) * step)
    depth = {"bfloat": 2, "byte": 4}.get(form, 1)
    panels = padded.view(-1, LANES, k // depth, depth).transpose(1, 2)
    return Matrix(keep(panels, DTYPES[form]), keep(padded_bias), scale, sums, round_up(n), k, FORMATS[form])


def pack_folding(attention: Attention, keep: Keep, form: Callable[[Tensor], str]) -> tuple[Any, ...]:
    """Weights that fold condition tokens into a cross-attention (see `bac.folding`): the last fields of a Layer.

    Args:
        form: which of `FORMATS` a weight is packed in.
    """
    d = attention.n_emb
    dh = d // attention.n_head
    no_bias = torch.zeros(d)

    def heads(weight: Tensor) -> Any:
        """A matrix per head of a weight [d, d] that has a head's numbers in adjacent columns."""
        parts = [pack(part, no_bias, keep, form(weight)) for part in weight.split(dh, dim=1)]
        return array(Matrix, parts, keep)

    key_value, bias = attention.in_proj_weight[d:], attention.in_proj_bias
    return (
        pack(key_value, bias[d:], keep, form(key_value)),
        heads(attention.in_proj_weight[:d].t()),
        heads(attention.out_proj.weight),
        keep(bias[:d]),
    )
