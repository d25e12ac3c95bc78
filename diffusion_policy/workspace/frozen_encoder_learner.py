"""Training only the denoiser, once the vision encoder sees: every image is encoded some times, not in every epoch.

The encoder is nine tenths of the arithmetic of a training step. What is lost is that it follows the denoising loss; an ordinary
training may do that afterwards, from here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path
from diffusion_policy.dataset.numpy_files import read_npy
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy
from diffusion_policy.policy.observation_checks import unit_images


class EncodedDataset(torch.utils.data.Dataset):
    """The windows of `dataset` with features in place of observations.

    Item: {'action': float32 [T, Da], 'features': float32 [To, V, Do]}, V views of each observation. A list of indices gives
    a batch [B, ...] at once.

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


class FrozenEncoderLearner(nn.Module):
    """A policy whose denoiser learns from features of a vision encoder that stays as it is.

    Takes the place of the policy in `TrainWorkspace`; `trained_policy` is the policy to go on with.

    Args:
        policy: on images.
        views: V, how often an image is encoded: once its centre, then crops at random places. A training batch takes one
            of them for each observation.
    Raises:
        ConfigError: the policy has no vision encoder.
    """

    def __init__(self, policy: DiffusionTransformerPolicy, views: int = 8):
        super().__init__()
        if not policy.cameras:
            raise ConfigError("objective=frozen_encoder is for policies on images: this one has no vision encoder")
        if views < 1:
            raise ConfigError(f"objective.views is {views}: an image has to be encoded once at least")
        self.policy, self.views = policy, views
        policy.obs_encoder.requires_grad_(False)

    def prepare(
        self, train: ImageSequenceDataset, val: ImageSequenceDataset | None, folder: Path, seed: int
    ) -> tuple[EncodedDataset, EncodedDataset | None]:
        """The data sets with features; validation sees centres only. Finished views are kept under `folder`."""
        key = hashlib.sha256(str(seed).encode())
        for value in [*self.policy.obs_encoder.state_dict().values(), *self.policy.normalizer.state_dict().values()]:
            key.update(value.detach().cpu().contiguous().numpy().tobytes())
        for values in [*train.images.values(), *(vector.numpy() for vector in train.vectors.values())]:
            key.update(np.ascontiguousarray(values).data)
        views = []
        for view in range(self.views):
            path = Path(folder) / f"{key.hexdigest()[:12]}-{view}.npy"
            if not path.exists():
                features = self.encode(train, random_crops=view > 0, seed=seed + view)
                with atomic_path(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, features)
                print(f"images encoded, view {view + 1} of {self.views}", flush=True)
            views.append(torch.from_numpy(read_npy(path, "Delete it and run the same command again")))
        features = torch.stack(views, dim=1)
        return EncodedDataset(train, features), None if val is None else EncodedDataset(val, features[:, :1])

    @torch.no_grad()
    def encode(self, dataset: ImageSequenceDataset, random_crops: bool, seed: int, batch: int = 64) -> np.ndarray:
        """Features [N, Do] of all rows of the data set's buffer."""
        policy, generator = self.policy.eval(), torch.Generator(self.policy.device).manual_seed(seed)
        policy.obs_encoder.training = random_crops  # that alone: batch normalisation stays as it is
        features = []
        for start in range(0, len(dataset.vectors["action"]), batch):
            rows = slice(start, start + batch)
            images = {
                name: unit_images(name, torch.from_numpy(np.ascontiguousarray(values[rows])).movedim(-1, -3))
                for name, values in dataset.images.items()
            }
            obs = {
                **images,
                **{name: dataset.vectors[name][rows] for name in self.policy.obs_shapes if name not in images},
            }
            obs = {name: value[:, None].to(policy.device) for name, value in obs.items()}
            features.append(policy.encode(policy.normalizer.normalize(obs), generator)[:, 0].cpu().numpy())
        return np.concatenate(features)

    def train(self, mode: bool = True) -> FrozenEncoderLearner:
        super().train(mode)
        self.policy.obs_encoder.eval()
        return self

    def compute_loss(
        self, batch: dict[str, Tensor], generator: torch.Generator | None = None, **settings: Any
    ) -> Tensor:
        """`denoising_loss` of a batch of `EncodedDataset`."""
        views = batch["features"]
        chosen = torch.randint(views.shape[2], (*views.shape[:2], 1, 1), generator=generator, device=views.device)
        features = views.gather(2, chosen.expand(-1, -1, -1, views.shape[-1]))[:, :, 0]
        return self.policy.denoising_loss(features, batch["action"], generator, **settings)

    def optimizer_groups(self, weight_decay: float) -> list[dict]:
        return self.policy.model.optimizer_groups(weight_decay)

    def trained_policy(self) -> DiffusionTransformerPolicy:
        return self.policy
