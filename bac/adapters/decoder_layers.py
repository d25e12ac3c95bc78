"""Layers of a language model as an action expert (flow matching, as in pi0): Llama, Gemma and their like.

Pre-norm, `self_attn` and `mlp` are the branches. Models that call the projections inside of `self_attn` themselves, as
joint forward passes of two experts do, do not compute it as a module: the self-test says so.
"""

from __future__ import annotations

from torch import nn

from bac.blocks import Block

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


def blocks(model: nn.Module) -> list[str]:
    """`layers.3.self_attn` and `layers.3.mlp`."""
    found: list[str] = []
    layer = 0
    for path, module in model.named_modules():
        if all(isinstance(getattr(module, name, None), nn.Module) for name in _PARTS):
            found += [Block(f"{path}.self_attn", "sa", layer), Block(f"{path}.mlp", "ffn", layer)]
            layer += 1
    return found
