"""Camera images and low-dimensional observations -> one feature vector, as robomimic computes and names it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.vision.crops import centre_crops, random_crops
from diffusion_policy.model.vision.resnet import CHANNELS, STRIDE, ResNet18Conv, group_norm
from diffusion_policy.model.vision.spatial_softmax import SpatialSoftmax

KEYPOINTS, FEATURES = 32, 64  # of one camera
# Share of an image's area. Crops of Chi et al. 2023 have 63 to 82 %; what a smaller one leaves out is hardly ever seen.
SMALL_CROP = 0.5


class SmallCropWarning(UserWarning):
    """A policy looks at a small part of its images."""


class CameraEncoder(nn.Module):
    """Images [N, C, H, W] in [-1, 1] -> features [N, 64].

    The state dict names the tensors of `backbone` and `pool` twice, once more under `nets`: original checkpoints do.
    """

    def __init__(self, channels: int, height: int, width: int, use_group_norm: bool):
        super().__init__()
        self.backbone = ResNet18Conv(channels, group_norm if use_group_norm else nn.BatchNorm2d)
        self.pool = SpatialSoftmax(CHANNELS, -(-height // STRIDE), -(-width // STRIDE), KEYPOINTS)
        self.nets = nn.Sequential(self.backbone, self.pool, nn.Flatten(), nn.Linear(2 * KEYPOINTS, FEATURES))

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.nets(images))


class ObservationEncoder(nn.Module):
    """Normalised observations by name, [N, *shape] each -> features [N, D] in the order of `shapes`.

    A camera contributes 64 features, a low-dimensional observation itself.

    Args:
        shapes: name -> shape, [C, H, W] for a camera.
        cameras: the names that are cameras.
        crop_shape: (height, width) cut out of every image; None: no crop.
        use_group_norm: group instead of batch normalisation in the ResNets.
        fixed_crop: crops are at the centre unless `random_crops` is set; otherwise they are always random.

    Attributes:
        random_crops: whether every image is cropped at a random place. A training sets it, and clears it to validate;
            `train()` and `eval()` do not touch it.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        cameras: Collection[str],
        crop_shape: tuple[int, int] | None,
        use_group_norm: bool,
        fixed_crop: bool,
    ):
        super().__init__()
        self.shapes, self.cameras = dict(shapes), frozenset(cameras)
        self.crop_shape, self.fixed_crop = crop_shape, fixed_crop
        self.random_crops = False
        self.obs_nets = nn.ModuleDict()
        for name in (name for name in shapes if name in self.cameras):
            channels, height, width = shapes[name]
            crop = (height, width) if crop_shape is None else crop_shape
            if crop[0] > height or crop[1] > width:
                raise ValueError(
                    f"crop_shape {crop[0]} x {crop[1]} exceeds the images of {name}, {height} x {width} pixels: "
                    "use a smaller one"
                )
            self.obs_nets[name] = CameraEncoder(channels, *crop, use_group_norm)
        self._warn_of_small_crops()
        self.output_dim = sum(FEATURES if name in self.cameras else shape[0] for name, shape in shapes.items())

    def _warn_of_small_crops(self) -> None:
        outline = all(parameter.is_meta for parameter in self.parameters())  # which sees nothing
        if self.crop_shape is None or outline:
            return
        height, width = self.crop_shape
        sizes = {name: self.shapes[name][1:] for name in self.obs_nets}
        small = [
            f"{100 * height * width / (h * w):.1f} % of the images of {name}, {h} x {w} pixels"
            for name, (h, w) in sizes.items()
            if height * width < SMALL_CROP * h * w
        ]
        if small:
            warnings.warn(
                f"crop_shape {height} x {width} leaves {', '.join(small)}: in evaluation the policy sees no more than "
                "that. Set crop_shape to about nine tenths of height and width (null: all of the image), or draw "
                "smaller images",
                SmallCropWarning,
                stacklevel=4,
            )

    def forward(self, obs: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observations [N, *shape] by name -> features [N, D].

        `generator` decides where images are cropped, where that is random; None: PyTorch's global one.
        """
        features = [
            self._camera(name, obs[name], generator) if name in self.cameras else obs[name] for name in self.shapes
        ]
        return torch.cat(features, dim=-1)

    def _camera(self, name: str, images: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.crop_shape is not None:
            if self.random_crops or not self.fixed_crop:
                images = random_crops(images, *self.crop_shape, generator)
            else:
                images = centre_crops(images, *self.crop_shape)
        return self.obs_nets[name](images)
