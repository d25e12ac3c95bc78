"""Training only the denoiser, once the vision encoder sees: every image is encoded a few times, not in every epoch.

The encoder is nine tenths of the arithmetic of a training step. What is lost is that it follows the denoising loss; an
ordinary training may do that afterwards, from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path
from diffusion_policy.common.lock import locked
from diffusion_policy.dataset.numpy_files import read_npy
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy
from diffusion_policy.policy.observation_checks import unit_images
from diffusion_policy.workspace.objectives.contract import set_random_crops


class EncodedDataset(torch.utils.data.Dataset):
    """The windows of `dataset` with features in place of observations.

    Item: {'action': float32 [T, Da], 'features': float32 [To, V, Do]}, V crops of each observation. A list of indices
    gives a batch [B, ...] at once.

    Args:
        features: [N, V, Do] of the rows of the data set's buffer.
    """

    def __init__(self, dataset: ImageSequenceDataset, features: Tensor):
        self.dataset, self.features = dataset, features

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        rows = self.dataset.rows[index]
        return {
            "action": self.dataset.vectors["action"][rows],
            "features": self.features[rows[..., : self.dataset.n_obs_steps]],
        }


class FrozenEncoderObjective(nn.Module):
    """The denoiser learns from features of a vision encoder that stays as it is.

    Args:
        policy: on images, with an encoder that has learned. Trained in place.
        n_crops: V, how often an image is encoded: once its centre, then crops at random places. A training batch takes
            one of them for each observation.
    Raises:
        ConfigError: the policy has no vision encoder, or `n_crops` is below 1.
    """

    needs_init_checkpoint = True  # a random encoder sees nothing
    policy_acts = True
    recordable = True

    def __init__(self, policy: DiffusionTransformerPolicy, n_crops: int = 8):
        super().__init__()
        if not policy.cameras:
            raise ConfigError("objective=frozen_encoder is for policies on images: this one has no vision encoder")
        if n_crops < 1:
            raise ConfigError(f"objective.n_crops is {n_crops}: an image has to be encoded once at least")
        self.policy, self.n_crops = policy, n_crops
        policy.obs_encoder.requires_grad_(False)

    def prepare(
        self, train: ImageSequenceDataset, val: ImageSequenceDataset | None, folder: Path, seed: int
    ) -> tuple[EncodedDataset, EncodedDataset | None]:
        """The data sets with features; validation sees centres only. `folder` keeps the features of each crop.

        Raises:
            LockedError: another process encodes into `folder`; ConfigError: a file there is damaged.
        """
        key = self._features_key(train, seed)
        crops = []
        with locked(folder, "encoding of images"):
            for crop in range(self.n_crops):
                path = folder / f"{key}-{crop}.npy"
                if not path.exists():
                    features = self.encode(train, random_crops=crop > 0, seed=seed + crop)
                    with atomic_path(path) as temporary, open(temporary, "wb") as file:
                        np.save(file, features)
                    print(f"images encoded, crop {crop + 1} of {self.n_crops}", flush=True)
                crops.append(torch.from_numpy(read_npy(path, "Delete it and run the same command again")))
        features = torch.stack(crops, dim=1)
        return EncodedDataset(train, features), None if val is None else EncodedDataset(val, features[:, :1])

    def _features_key(self, dataset: ImageSequenceDataset, seed: int) -> str:
        """12 hexadecimal digits that depend on all that the features depend on."""
        key = hashlib.sha256(str(seed).encode())
        for value in [*self.policy.obs_encoder.state_dict().values(), *self.policy.normalizer.state_dict().values()]:
            key.update(value.detach().cpu().contiguous().numpy().tobytes())
        for values in [*dataset.images.values(), *(vector.numpy() for vector in dataset.vectors.values())]:
            key.update(np.ascontiguousarray(values).data)
        return key.hexdigest()[:12]

    @torch.no_grad()
    def encode(self, dataset: ImageSequenceDataset, random_crops: bool, seed: int, batch: int = 64) -> np.ndarray:
        """Features [N, Do] of all rows of the data set's buffer."""
        policy, generator = self.policy.eval(), torch.Generator(self.policy.device).manual_seed(seed)
        set_random_crops(policy, random_crops)
        features = []
        for start in range(0, len(dataset.vectors["action"]), batch):
            rows = slice(start, start + batch)
            images = {
                name: unit_images(name, torch.from_numpy(np.ascontiguousarray(values[rows])).movedim(-1, -3))
                for name, values in dataset.images.items()
            }
            vectors = {name: dataset.vectors[name][rows] for name in policy.obs_shapes if name not in images}
            obs = {name: value[:, None].to(policy.device) for name, value in {**images, **vectors}.items()}
            features.append(policy.encode(policy.normalizer.normalize(obs), generator)[:, 0].cpu().numpy())
        set_random_crops(policy, False)
        return np.concatenate(features)

    def train(self, mode: bool = True) -> FrozenEncoderObjective:
        super().train(mode)
        self.policy.obs_encoder.eval()
        set_random_crops(self.policy, False)
        return self

    def compute_loss(
        self,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """`denoising_loss` of a batch of `EncodedDataset`."""
        crops = batch["features"]  # [B, To, V, Do]
        chosen = torch.randint(crops.shape[2], (*crops.shape[:2], 1, 1), generator=generator, device=crops.device)
        features = crops.gather(2, chosen.expand(-1, -1, -1, crops.shape[-1]))[:, :, 0]
        return self.policy.denoising_loss(features, batch["action"], generator, snr_gamma, noise_draws)

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return self.policy.model.optimizer_groups(weight_decay)

    def trained_policy(self) -> DiffusionTransformerPolicy:
        return self.policy
