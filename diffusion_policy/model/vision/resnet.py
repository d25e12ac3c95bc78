"""ResNet-18 without its classifier (He et al. 2016), with the parameter names of torchvision inside a numbered list."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

CHANNELS = 512  # of the feature map
STRIDE = 32  # pixels of the image per element of the feature map

Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels; unlike batch statistics it goes with averaged weights (Chi et al. 2023, section III-B)."""
    return nn.GroupNorm(channels // 16, channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the names are torchvision's, `bn` whatever the normalisation."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.downsample = None
        if stride > 1 or channels_in != channels:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18Conv(nn.Module):
    """Images [N, C, H, W] -> features [N, 512, ceil(H / 32), ceil(W / 32)].

    `nets` is [first convolution, norm, ReLU, max pooling, four stages of two blocks], as in the robomimic package.
    """

    def __init__(self, channels_in: int = 3, norm: Norm = group_norm):
        super().__init__()

        def stage(before: int, channels: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                ResidualBlock(before, channels, stride, norm), ResidualBlock(channels, channels, 1, norm)
            )

        self.nets = nn.Sequential(
            nn.Conv2d(channels_in, 64, 7, stride=2, padding=3, bias=False),
            norm(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            stage(64, 64, 1),
            stage(64, 128, 2),
            stage(128, 256, 2),
            stage(256, CHANNELS, 2),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.nets(images)
