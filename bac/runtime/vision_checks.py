"""What a runtime must know of a vision encoder before it encodes in its place, and whether that still holds."""

from __future__ import annotations

from typing import Any

from torch import nn

from bac.known_modules import foreign_encoder_part
from bac.runtime.snapshot import ModelSnapshot


def why_opaque(module: nn.Module) -> str | None:
    """Why nothing can encode in the place of `module`, in words; None: it is this project's, and draws nothing."""
    foreign = foreign_encoder_part(module)
    if foreign is not None:
        return foreign
    encoder: Any = module
    if encoder.crop_shape is not None and not encoder.fixed_crop:
        return "it crops images at random places"
    if not encoder.obs_nets:
        return "it has no cameras"
    return None


class EncoderSnapshot:
    """Notices that a vision encoder is not what it was, or does not evaluate."""

    def __init__(self, module: nn.Module):
        self._module: Any = module
        self._snapshot = ModelSnapshot(module)
        self._uses_batches = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())

    def check(self) -> None:
        """Raises:
        RuntimeError: see `ModelSnapshot.check`; or the encoder is in training mode, or crops at random places.
        """
        self._snapshot.check()
        if self._module.random_crops or self._module.training and self._uses_batches:
            raise RuntimeError("the vision encoder is in training mode: call policy.eval() first, without random crops")
