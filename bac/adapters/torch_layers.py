"""PyTorch's own `nn.TransformerDecoder` and `nn.TransformerEncoder`, pre-norm, as in the original Diffusion Policy.

Their layers compute each branch in a method of its own. The encoder's fused kernel does not, and is taken where no
gradient is asked for: `torch.backends.mha.set_fastpath_enabled(False)` turns it off.
"""

from __future__ import annotations

from torch import nn

from bac.blocks import Block
from bac.errors import NoDenoiser

_BRANCHES = (
    (nn.TransformerDecoderLayer, (("_sa_block", "sa"), ("_mha_block", "ca"), ("_ff_block", "ffn"))),
    (nn.TransformerEncoderLayer, (("_sa_block", "sa"), ("_ff_block", "ffn"))),
)


def blocks(model: nn.Module) -> list[str]:
    """`decoder.layers.3:_mha_block`, layers counted through all stacks, in the order of the model's modules.

    Raises:
        NoDenoiser: a layer is post-norm, where no branch is added to a residual stream that is left alone.
    """
    found: list[str] = []
    layer = 0
    for path, module in model.named_modules():
        for cls, branches in _BRANCHES:
            if isinstance(module, cls):
                if not module.norm_first:
                    raise NoDenoiser(f"layer {path} is post-norm; caching needs pre-norm layers (norm_first=True)")
                found += [Block(f"{path}:{method}", kind, layer) for method, kind in branches]
                layer += 1
    return found
