"""`TransformerForDiffusion` of this project: its layers have a method per branch, and its blocks the paper's names."""

from __future__ import annotations

from torch import nn

from bac.denoiser import model_blocks
from bac.errors import NoDenoiser


def blocks(model: nn.Module) -> list[str]:
    """`decoder.layers.3.ca`: see `bac.denoiser.model_blocks`."""
    try:
        return list(model_blocks(model))
    except NoDenoiser:
        return []
