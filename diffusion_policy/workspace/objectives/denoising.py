"""The loss of a diffusion policy on demonstrations: plain denoising."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy
from diffusion_policy.workspace.objectives.contract import set_random_crops


class DenoisingObjective(nn.Module):
    """All of a policy learns from the denoising loss (Ho et al. 2020, eq. 14), on random crops of its images.

    Args:
        policy: trained in place.
    """

    needs_init_checkpoint = False
    policy_acts = True
    recordable = True

    def __init__(self, policy: DiffusionTransformerPolicy):
        super().__init__()
        self.policy = policy

    def prepare(self, train: Dataset, val: Dataset | None, folder: Path, seed: int) -> tuple[Dataset, Dataset | None]:
        """The data sets as they are."""
        return train, val

    def compute_loss(
        self,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """See `DiffusionTransformerPolicy.compute_loss`."""
        return self.policy.compute_loss(batch, generator, snr_gamma, noise_draws)

    def train(self, mode: bool = True) -> DenoisingObjective:
        super().train(mode)
        set_random_crops(self.policy, mode)
        return self

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return self.policy.optimizer_groups(weight_decay)

    def trained_policy(self) -> DiffusionTransformerPolicy:
        return self.policy
