"""The layers of RDT (Robotics Diffusion Transformer, Liu et al. 2025): self-attention, cross-attention, feed-forward.

Each is pre-norm and a residual branch; in RDT-1B 28 layers alternate between language and image tokens as condition.
"""

from __future__ import annotations

from torch import nn

from bac.blocks import Block

_BRANCHES = {"attn": "sa", "cross_attn": "ca", "ffn": "ffn"}


def blocks(model: nn.Module) -> list[str]:
    """`blocks.3.attn`, `blocks.3.cross_attn`, `blocks.3.ffn`."""
    found: list[str] = []
    layer = 0
    for path, module in model.named_modules():
        if all(isinstance(getattr(module, name, None), nn.Module) for name in _BRANCHES):
            found += [Block(f"{path}.{name}", kind, layer) for name, kind in _BRANCHES.items()]
            layer += 1
    return found
