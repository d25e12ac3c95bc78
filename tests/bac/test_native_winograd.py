"""Convolutions by tiles or taps give what convolutions give: for any shape, level and team, each frame by itself."""

import random

import pytest
import torch
from torch import nn

from bac.native import build, levels
from bac.native.errors import NativeError
from bac.native.winograd import POINTS, choose_tile, transform
from bac.runtime import vision
from bac.runtime.vision import NativeEncoder
from diffusion_policy.model.vision.observation_encoder import ObservationEncoder
from diffusion_policy.model.vision.resnet import ResidualBlock, group_norm
from diffusion_policy.model.vision.spatial_softmax import SpatialSoftmax
from tests.bac.test_vision_encoder import BF16_TOLERANCE, TOLERANCE, error
from tests.bac.tiny_policies import needs_compiler

pytestmark = needs_compiler
TILES = sorted(POINTS)


@torch.no_grad()
def any_encoder(seed):
    """A small encoder of random sizes, kernels, strides, paddings and channels, weights as if trained."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    shape = (draw.randint(1, 4), draw.randint(33, 60), draw.randint(33, 60))
    norm = group_norm if seed % 2 else nn.BatchNorm2d
    encoder = ObservationEncoder({"eye": shape}, ("eye",), None, seed % 2 == 1, True)
    channels, size = draw.choice([16, 48]), draw.choice([1, 3, 7])
    stem = nn.Conv2d(shape[0], channels, size, draw.choice([1, 2]), size // 2, bias=False)
    blocks = []
    for valid in (False, True):  # the second one without padding: its maps become smaller
        before, channels = channels, draw.choice([16, 32, 80])
        stride = draw.choice([1, 1, 2])
        block = ResidualBlock(before, channels, stride, norm)
        if valid:
            block.conv1.padding = (0, 0)
            block.downsample = nn.Sequential(nn.Conv2d(before, channels, 3, stride, bias=False), norm(channels))
        blocks.append(block)
    net = encoder.obs_nets["eye"]
    backbone = net.backbone.nets
    net.backbone.nets = nn.Sequential(stem, norm(stem.out_channels), backbone[2], backbone[3], nn.Sequential(*blocks))
    map_shape = net.backbone.eval()(torch.zeros(1, *shape)).shape
    net.pool = SpatialSoftmax(*map_shape[1:], 8)
    net.nets = nn.Sequential(net.backbone, net.pool, nn.Flatten(), nn.Linear(16, 24))
    for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]:
        if "bn" in name or "running" in name:
            value.copy_(value + 0.3 * torch.rand(value.shape))
        if name.endswith("pool.nets.weight"):
            value.mul_(10)
    return encoder.eval(), torch.rand(3, 1, *shape) * 2 - 1


def force(monkeypatch, tile):
    """All convolutions that can run by such tiles do."""
    monkeypatch.setattr(
        vision,
        "choose_tile",
        lambda channels, size, stride, *_: tile * (size == 3 and stride == 1 and channels % 16 == 0),
    )


def tiles_of(native):
    camera = native.native.camera[0]
    convs = [conv for block in camera.block[: camera.blocks] for conv in (block.first, block.second, block.shortcut)]
    return {conv.tile for conv in convs}


@torch.no_grad()
def expected(module, images):
    return module({"eye": images.flatten(0, 1)}).unflatten(0, images.shape[:2])


@pytest.mark.parametrize("tile", [0, *TILES])
@pytest.mark.parametrize("seed", range(6))
def test_tiles_and_taps_give_the_features_of_the_module_at_every_level(monkeypatch, seed, tile):
    force(monkeypatch, tile)
    module, images = any_encoder(seed)
    for level in levels.usable_levels(build.library()):
        monkeypatch.setenv("BAC_LEVEL", level.name)
        for threads in (1, 3):
            native = NativeEncoder(module, threads=threads)
            assert tile in tiles_of(native)
            assert error(native({"eye": images}), expected(module, images)) < TOLERANCE, (level.name, threads)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tile", [0, *TILES])
def test_a_frame_depends_neither_on_others_nor_on_threads_and_its_nan_stays(monkeypatch, tile, precision):
    if precision == "bf16" and "bfloat" not in levels.choose_level(build.library()).formats:
        pytest.skip("this processor does not multiply bfloat16")
    force(monkeypatch, tile)
    module, _ = any_encoder(5)
    images = torch.rand(13, 1, *module.shapes["eye"]) * 2 - 1
    native = NativeEncoder(module, precision, threads=1)
    together = native({"eye": images})
    assert error(together, expected(module, images)) < (TOLERANCE if precision == "fp32" else 5 * BF16_TOLERANCE)
    for threads in (1, 2, 5, 16):
        for frames in (1, 2, 13):
            some = NativeEncoder(module, precision, threads=threads)({"eye": images[:frames]})
            assert torch.equal(some, together[:frames])
    broken = images.clone()
    broken[1, 0, 0, 4, 7] = torch.nan
    seen = native({"eye": broken})
    assert torch.equal(seen.isnan(), expected(module, broken).isnan()) and seen[1].isnan().all()
    assert torch.equal(seen[[0, *range(2, 13)]], together[[0, *range(2, 13)]])


def chosen_tiles(precision):
    """Those that are chosen for some map."""
    return {choose_tile(64, 3, 1, 1, (side, side), precision) for side in range(1, 60)}


def test_tiles_are_chosen_by_shape():
    assert chosen_tiles("fp32") == {0, 2, 4} and chosen_tiles("bf16") == {0, 2}
    for precision in ("fp32", "bf16"):
        assert choose_tile(64, 3, 1, 1, (3, 3), precision) == 0  # more weights than it saves
        for channels, size, stride in ((3, 3, 1), (64, 3, 2), (64, 1, 1), (64, 7, 1)):
            assert choose_tile(channels, size, stride, size // 2, (40, 40), precision) == 0


@pytest.mark.parametrize("tile", TILES)
def test_weights_at_the_points_are_the_kernels_to_rounding(tile):
    weight = torch.randn(2, 3, 3, 3)
    at_points = transform(weight, tile)
    assert at_points.shape == (2, tile + 2, tile + 2, 3)
    assert torch.equal(at_points[:, -1, -1], weight[:, :, 2, 2])  # infinity: the highest coefficient


@pytest.mark.parametrize(("field", "value"), [("tile", 3), ("tile", 0), ("tile", -2), ("stride", 2), ("size", 5)])
def test_tiles_that_do_not_fit_are_refused(monkeypatch, field, value):
    force(monkeypatch, 4)
    module, images = any_encoder(1)
    native = NativeEncoder(module, threads=1)
    setattr(native.native.camera[0].block[0].second, field, value)
    with pytest.raises(NativeError, match="a block"):
        native({"eye": images})
