"""What a denoising loop starts from, for one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplerInputs:
    """What is known of B action chunks before they are denoised. All tensors are on one device, in normalised units.

    Attributes:
        known: trajectory entries [B, T, D] that are known; the sampled trajectory has this shape, device and dtype.
        mask: boolean [B, T, D], where `known` holds at every step (inpainting); None: nowhere.
        observation: observations [B, To, Do] for the condition tokens; None when inpainting.

    Raises:
        ValueError: the batch is empty, or the shapes do not belong together.
    """

    known: Tensor
    mask: Tensor | None = None
    observation: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.known.shape)
        if self.known.ndim != 3:
            raise ValueError(
                f"known has shape {shape}, it must be [B, T, D]: the trajectory of each sample of the batch"
            )
        if shape[0] == 0:
            raise ValueError("the batch is empty: give at least one sample")
        if self.mask is not None and tuple(self.mask.shape) != shape:
            raise ValueError(f"mask has shape {tuple(self.mask.shape)}, it must be that of known, {shape}")
        if self.mask is not None and self.mask.dtype is not torch.bool:
            raise ValueError(f"mask has dtype {self.mask.dtype}, it must be boolean")
        if self.observation is not None and (self.observation.ndim != 3 or len(self.observation) != shape[0]):
            actual = tuple(self.observation.shape)
            raise ValueError(f"observation has shape {actual}, it must be [B, To, Do] with B = {shape[0]} as known")

    def __len__(self) -> int:
        """B, the number of samples."""
        return len(self.known)

    def __getitem__(self, rows: slice) -> SamplerInputs:
        """Some samples of the batch."""
        optional = (None if tensor is None else tensor[rows] for tensor in (self.mask, self.observation))
        return SamplerInputs(self.known[rows], *optional)

    def clone(self) -> SamplerInputs:
        """A copy of all tensors."""
        optional = (None if tensor is None else tensor.clone() for tensor in (self.mask, self.observation))
        return SamplerInputs(self.known.clone(), *optional)

    def head(self, tokens: int | None) -> SamplerInputs:
        """What is known of the first `tokens` tokens of each trajectory (views); None: of all."""
        if tokens is None or tokens >= self.known.shape[1]:
            return self
        mask = None if self.mask is None else self.mask[:, :tokens]
        return SamplerInputs(self.known[:, :tokens], mask, self.observation)

    def impose(self, trajectory: Tensor) -> Tensor:
        """`trajectory` [B, T, D] with the known entries in their places."""
        return trajectory if self.mask is None else torch.where(self.mask, self.known, trajectory)
