"""DiT layers with adaLN gates (Peebles and Xie 2023, section 3.2), such as LeRobot's `multi_task_dit`.

x <- x + gate(t) * branch(modulate(norm(x), t)): the branch is cached without its gate, which depends on the timestep
and is cheap, so every step applies its own.
"""

from __future__ import annotations

from torch import nn

from bac.blocks import Block

_ATTENTIONS = ("attn", "multihead_attn")  # with and without rotary embedding in LeRobot; DiT's own is `attn`


def blocks(model: nn.Module) -> list[str]:
    """`transformer_blocks.3.multihead_attn` and `transformer_blocks.3.mlp`."""
    found: list[str] = []
    layer = 0
    for path, module in model.named_modules():
        attention = next((name for name in _ATTENTIONS if hasattr(module, name)), None)
        if attention and hasattr(module, "adaLN_modulation") and hasattr(module, "mlp"):
            found += [Block(f"{path}.{attention}", "sa", layer), Block(f"{path}.mlp", "ffn", layer)]
            layer += 1
    return found
