"""How the cacheable blocks of a `TransformerForDiffusion` are named, called and counted."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bac.blocks import BlockId, decoder_blocks, encoder_blocks, parse
from diffusion_policy.model.diffusion.layers import TransformerLayer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion

# branch(x [B, T, D], memory [B, S, D] or None) -> residual branch output [B, T, D]
Branch = Callable[[Tensor, "Tensor | None"], Tensor]


def model_blocks(model: TransformerForDiffusion) -> tuple[str, ...]:
    """Names of the model's cacheable blocks in execution order."""
    if not isinstance(model, TransformerForDiffusion):
        raise TypeError(
            f"block-wise caching works on TransformerForDiffusion (DP-T); this policy's model is {type(model).__name__}"
        )
    return encoder_blocks(model.n_layer) if model.encoder_only else decoder_blocks(model.n_layer)


def layer_of(model: TransformerForDiffusion, block: BlockId | str) -> TransformerLayer:
    """The layer a block belongs to."""
    block = parse(block) if isinstance(block, str) else block
    return model.trunk.layers[block.layer]


def branch(model: TransformerForDiffusion, name: str, mask: Tensor | None, memory_mask: Tensor | None) -> Branch:
    """The block as a function of the residual stream and the condition tokens."""
    block = parse(name)
    layer = layer_of(model, block)
    if block.kind == "sa":
        return lambda x, memory: layer.sa(x, mask)
    if block.kind == "ca":
        return lambda x, memory: layer.ca(x, memory, memory_mask)
    return lambda x, memory: layer.ffn(x)
