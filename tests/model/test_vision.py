"""The vision encoder: robomimic's numbers and names, crops that can be repeated."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from diffusion_policy.model.vision.crops import centre_crops, random_crops
from diffusion_policy.model.vision.observation_encoder import CameraEncoder, ObservationEncoder
from diffusion_policy.model.vision.resnet import ResNet18Conv
from diffusion_policy.model.vision.spatial_softmax import SpatialSoftmax

CAN = {
    "agentview_image": (3, 84, 84),
    "robot0_eye_in_hand_image": (3, 84, 84),
    "robot0_eef_pos": (3,),
    "robot0_eef_quat": (4,),
    "robot0_gripper_qpos": (2,),
}
CAMERAS = tuple(name for name, shape in CAN.items() if len(shape) == 3)


def observations(batch: int, shapes=CAN, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(batch, *shape, generator=generator) * 2 - 1 for name, shape in shapes.items()}


@torch.no_grad()
def with_random_norms(module: torch.nn.Module) -> torch.nn.Module:
    """Norms start as the identity; trained ones are not."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, (torch.nn.GroupNorm, torch.nn.BatchNorm2d)):
            layer.weight.copy_(1 + 0.3 * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    return module


@pytest.fixture(scope="module")
def can_encoder() -> ObservationEncoder:
    torch.manual_seed(0)
    return with_random_norms(ObservationEncoder(CAN, CAMERAS, (76, 76), use_group_norm=True, fixed_crop=True)).eval()


# ---- the network ----


def test_tensors_have_the_names_of_the_original(can_encoder):
    block = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
    shortcut = ["downsample.0.weight", "downsample.1.weight", "downsample.1.bias"]
    trunk = ["0.weight", "1.weight", "1.bias"] + [
        f"{stage}.{i}.{name}"
        for stage in range(4, 8)
        for i in range(2)
        for name in block + (shortcut if stage > 4 and i == 0 else [])
    ]
    pool = ["temperature", "pos_x", "pos_y", "nets.weight", "nets.bias"]
    one = [f"backbone.nets.{name}" for name in trunk] + [f"pool.{name}" for name in pool]
    one += (
        [f"nets.0.nets.{name}" for name in trunk]
        + [f"nets.1.{name}" for name in pool]
        + ["nets.3.weight", "nets.3.bias"]
    )
    state = can_encoder.state_dict()
    assert set(state) == {f"obs_nets.{camera}.{name}" for camera in CAMERAS for name in one}
    assert state["obs_nets.agentview_image.pool.pos_x"].shape == (1, 9)
    assert sum(p.numel() for p in can_encoder.parameters()) == 22_394_176


def written_out(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The features of one camera, [N, 64], from its tensors alone."""
    w = state

    def norm(x, name):  # groups of 16 channels
        groups = x.reshape(len(x), -1, 16, *x.shape[2:])
        mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), unbiased=False, keepdim=True)
        normalised = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        return normalised * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    x = F.conv2d(images, w["backbone.nets.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, "backbone.nets.1").clamp(min=0), 3, stride=2, padding=1)
    for stage in range(4, 8):
        for i in range(2):
            at, stride = f"backbone.nets.{stage}.{i}", 2 if stage > 4 and i == 0 else 1
            y = norm(F.conv2d(x, w[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1").clamp(min=0)
            y = norm(F.conv2d(y, w[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if stride == 2:
                x = norm(F.conv2d(x, w[f"{at}.downsample.0.weight"], stride=2), f"{at}.downsample.1")
            x = (x + y).clamp(min=0)
    maps = torch.einsum("nchw,kc->nkhw", x, w["pool.nets.weight"][:, :, 0, 0]) + w["pool.nets.bias"][:, None, None]
    height, width = maps.shape[-2:]
    attention = maps.exp() / maps.exp().sum((-2, -1), keepdim=True)
    x_mean = (attention.sum(2) * torch.linspace(-1, 1, width)).sum(-1)
    y_mean = (attention.sum(3) * torch.linspace(-1, 1, height)).sum(-1)
    keypoints = torch.stack([x_mean, y_mean], dim=-1).flatten(1)  # x0 y0 x1 y1 ...
    return (keypoints @ w["nets.3.weight"].T + w["nets.3.bias"]).clamp(min=0)


@torch.no_grad()
def test_features_are_those_of_the_written_out_network(can_encoder):
    obs = observations(1)
    features = can_encoder(obs)
    assert features.shape == (1, 137) and can_encoder.output_dim == 137
    for i, camera in enumerate(CAMERAS):
        prefix = f"obs_nets.{camera}."
        state = {
            name[len(prefix) :]: value for name, value in can_encoder.state_dict().items() if name.startswith(prefix)
        }
        expected = written_out(state, obs[camera][:, :, 4:80, 4:80])
        torch.testing.assert_close(features[:, 64 * i : 64 * (i + 1)], expected, atol=1e-5, rtol=0)
    lowdim = torch.cat([obs[name] for name in CAN if name not in CAMERAS], dim=-1)
    assert torch.equal(features[:, 128:], lowdim)


@torch.no_grad()
def test_features_keep_the_order_of_the_observations():
    """Transport lists arm by arm: cameras and low-dimensional observations alternate."""
    shapes = {"left": (3, 33, 33), "left_pos": (2,), "right": (3, 33, 33), "right_pos": (3,)}
    encoder = ObservationEncoder(shapes, ("left", "right"), None, True, True).eval()
    obs = observations(2, shapes)
    features = encoder(dict(reversed(obs.items())))
    assert features.shape == (2, 64 + 2 + 64 + 3)
    assert torch.equal(features[:, 64:66], obs["left_pos"]) and torch.equal(features[:, 130:], obs["right_pos"])
    assert torch.equal(features[:, 66:130], encoder.obs_nets["right"](obs["right"]))


@pytest.mark.parametrize(("height", "width"), [(76, 76), (33, 64), (216, 31)])
def test_the_feature_map_has_an_element_per_32_pixels(height, width):
    with torch.device("meta"):
        shape = ResNet18Conv()(torch.empty(1, 3, height, width)).shape
        assert shape == (1, 512, -(-height // 32), -(-width // 32))
        assert CameraEncoder(3, height, width, True)(torch.empty(1, 3, height, width)).shape == (1, 64)


@torch.no_grad()
def test_a_key_point_lies_where_its_map_is_bright():
    pool = SpatialSoftmax(1, height=3, width=5, n_keypoints=1)
    pool.nets.weight.fill_(100.0)
    maps = torch.zeros(3, 1, 3, 5)
    maps[0, 0, 0, 4] = maps[1, 0, 2, 0] = maps[2, 0, 1, 3] = 1  # top right, bottom left, middle row
    torch.testing.assert_close(pool(maps)[:, 0], torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.0]]))


@torch.no_grad()
def test_batch_normalisation_is_an_option():
    encoder = ObservationEncoder({"image": (3, 33, 33)}, ("image",), None, use_group_norm=False, fixed_crop=True)
    assert "obs_nets.image.backbone.nets.4.0.bn1.running_mean" in encoder.state_dict()
    images = torch.rand(3, 3, 33, 33)
    together = encoder.eval()({"image": images})
    torch.testing.assert_close(together[:1], encoder({"image": images[:1]}), atol=1e-5, rtol=1e-5)


# ---- crops ----


def numbered(batch: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels say where they are: 1000 row + column; the second channel is the negative."""
    pixels = 1000 * torch.arange(height)[:, None] + torch.arange(width)[None, :]
    return torch.stack([pixels, -pixels])[None].expand(batch, -1, -1, -1)


def test_random_crops_are_windows_at_every_place():
    images = numbered(600, 7, 6)
    crops = random_crops(images, 5, 3, torch.Generator().manual_seed(0))
    assert crops.shape == (600, 2, 5, 3) and torch.equal(crops[:, 0], -crops[:, 1])
    corner = crops[:, :, :1, :1]
    assert torch.equal(crops - corner, numbered(600, 5, 3) * torch.tensor([1, 1])[:, None, None])
    places, counts = corner[:, 0].flatten().unique(return_counts=True)
    assert places.tolist() == [1000 * row + column for row in range(3) for column in range(4)]
    assert counts.min() > 20  # 50 expected of each


def test_random_crops_depend_on_the_generator_alone():
    images = numbered(8, 9, 9)
    crops = [random_crops(images, 4, 4, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])
    torch.manual_seed(5)
    first = random_crops(images, 4, 4)
    torch.manual_seed(5)
    assert torch.equal(first, random_crops(images, 4, 4))


def test_the_centre_and_the_whole_image():
    images = numbered(2, 84, 84)
    assert torch.equal(centre_crops(images, 76, 76), images[:, :, 4:80, 4:80])
    assert torch.equal(centre_crops(images, 84, 84), images) and torch.equal(random_crops(images, 84, 84), images)


@torch.no_grad()
@pytest.mark.parametrize(
    ("random_crops", "fixed_crop", "random"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_crops_are_random_where_that_is_set_and_at_the_centre_otherwise(random_crops, fixed_crop, random):
    encoder = ObservationEncoder({"image": (3, 48, 48)}, ("image",), (34, 34), True, fixed_crop)
    encoder.random_crops = random_crops
    image = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    first, again, other = (encoder({"image": image}, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(first, other) == (not random)
    assert torch.equal(first[0], first[1]) == (not random)  # every image is cropped at a place of its own


@torch.no_grad()
def test_training_mode_says_nothing_about_crops():
    """Dropout and batch statistics are one thing, where to look another."""
    encoder = ObservationEncoder({"image": (3, 48, 48)}, ("image",), (34, 34), True, fixed_crop=True)
    image = {"image": torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))}
    torch.testing.assert_close(encoder.train()(image), encoder.eval()(image))
    encoder.random_crops = True
    assert encoder.eval().random_crops and encoder.train().random_crops


def test_a_crop_that_exceeds_the_image():
    with pytest.raises(ValueError, match="crop_shape 76 x 76 exceeds the images of image, 64 x 96 pixels"):
        ObservationEncoder({"image": (3, 64, 96)}, ("image",), (76, 76), True, True)


# ---- the package the original uses ----


@pytest.fixture
def robomimic(monkeypatch):
    """The robomimic package; what it imports without needing it for this may be missing or broken."""
    pytest.importorskip("robomimic")
    package, builder = ModuleType("mujoco_py"), ModuleType("mujoco_py.builder")
    package.builder, builder.MujocoException = builder, type("MujocoException", (Exception,), {})
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, builder.__name__, builder)
    try:
        import torchvision
    except ImportError:
        pytest.skip("robomimic needs torchvision")
    except RuntimeError:  # built for CUDA, beside a PyTorch for CPUs: declare the operators it looks for
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401
    yield importlib.import_module("robomimic")  # while the library above exists


@torch.no_grad()
def test_features_are_those_of_robomimic(robomimic, can_encoder):
    """The same weights in the encoder that robomimic builds for image policies: features agree to 1e-6."""
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory
    from robomimic.scripts.generate_paper_configs import modify_config_for_default_image_exp

    config = modify_config_for_default_image_exp(config_factory("bc"))
    with config.unlocked():
        lowdim = [name for name in CAN if name not in CAMERAS]
        config.observation.modalities.obs = {"low_dim": lowdim, "rgb": list(CAMERAS), "depth": [], "scan": []}
        for encoder in config.observation.encoder.values():
            if encoder.obs_randomizer_class == "CropRandomizer":
                encoder.obs_randomizer_kwargs.crop_height = encoder.obs_randomizer_kwargs.crop_width = 76
    obs_utils.initialize_obs_utils_with_config(config)
    algo = algo_factory("bc", config, {name: list(shape) for name, shape in CAN.items()}, 10, "cpu")
    theirs = algo.nets["policy"].nets["encoder"].nets["obs"]
    for parent in list(theirs.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(parent, name, torch.nn.GroupNorm(child.num_features // 16, child.num_features))
    cropped = {name for name, module in theirs.obs_randomizers.items() if type(module).__name__ == "CropRandomizer"}
    assert cropped == set(CAMERAS)
    obs = observations(2)
    for name in CAMERAS:
        theirs.obs_randomizers[name] = None  # cropped here, where the centre is
    assert theirs.load_state_dict(can_encoder.state_dict()).missing_keys == []
    expected = theirs.eval()(
        {name: value[:, :, 4:80, 4:80] if name in CAMERAS else value for name, value in obs.items()}
    )
    torch.testing.assert_close(can_encoder(obs), expected, atol=1e-6, rtol=0)
