"""The native vision encoder gives the features of the policy's own, and runs only where it knows what that computes."""

import copy
import functools

import pytest
import torch
from torch import nn

from bac import accelerate
from bac.acting_encoder import ReusingEncoder
from bac.native import build, engine, levels
from bac.native.errors import NativeError
from bac.runtime.vision import NativeEncoder, why_unknown
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.model.vision.observation_encoder import ObservationEncoder
from tests.bac.test_image_policy import image_policy
from tests.bac.tiny_policies import needs_compiler, seeded
from tests.conftest import ROOT

pytestmark = needs_compiler
TOLERANCE = 1e-5  # of the range of the features
BF16_TOLERANCE = 0.02  # weights and activations have 8 bits of mantissa; products on ARM round once more
SHAPES = {"front": (3, 41, 70), "speed": (2,), "wrist": (4, 40, 80)}


@torch.no_grad()
def encoder_of(group_norm=True, half=False, crop=(40, 69), seed=0):
    """Two cameras of different sizes, one with depth, around a low-dimensional observation; weights as if trained."""
    torch.manual_seed(seed)
    encoder = ObservationEncoder(SHAPES, ("front", "wrist"), crop, group_norm, fixed_crop=True)
    for name, value in [*encoder.named_parameters(), *encoder.named_buffers()]:
        if "bn" in name or ".nets.1." in name or "running" in name:
            value.copy_(value + 0.3 * torch.rand(value.shape))
        if name.endswith("pool.nets.weight"):
            value.mul_(10)  # key points that move with the image
        if half:
            value.copy_(value.half())
    return encoder.eval()


#: of tests that do not alter it
shared = functools.cache(encoder_of)


def observations(batch=2, steps=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: 2 * torch.rand(batch, steps, *shape, generator=generator) - 1 for name, shape in SHAPES.items()}


@torch.no_grad()
def features(encoder, nobs):
    """Of the module itself; those of each camera differ between frames."""
    expected = encoder({name: value.flatten(0, 1) for name, value in nobs.items()})
    for camera in (expected[:, :64], expected[:, 66:]):
        assert (camera[0] - camera[1]).abs().max() > 0.02 * (camera.max() - camera.min())
    return expected.unflatten(0, next(iter(nobs.values())).shape[:2])


def error(got, expected):
    """Largest difference, relative to the range of what is expected."""
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / (expected.max() - expected.min())).item()


@pytest.mark.parametrize("half", [False, True], ids=["group norm", "batch norm, half weights"])
def test_every_level_gives_the_features_of_the_module(monkeypatch, half):
    module, nobs = encoder_of(group_norm=False, half=True) if half else shared(), observations()
    expected = features(module, nobs)
    for level in levels.usable_levels(build.library()):
        monkeypatch.setenv("BAC_LEVEL", level.name)
        native = NativeEncoder(module, threads=1)
        assert native.level.name == level.name
        assert error(native(nobs), expected) < TOLERANCE, level.name


def test_images_without_a_crop():
    module, nobs = encoder_of(crop=None), observations(batch=1)
    assert error(NativeEncoder(module, threads=1)(nobs), features(module, nobs)) < TOLERANCE


@pytest.mark.parametrize("task", ["can_scripted_demos", "lift_scripted_demos"])
def test_bundled_policies(task):
    policy = load_policy(ROOT / "checkpoint" / task / "ddpm100").policy
    obs = policy.random_observation(1, torch.Generator().manual_seed(0))
    expected = policy.encode_observation(obs)
    with accelerate(policy, runtime="compiled", threads=1) as fast:
        assert error(policy.encode_observation(obs), expected) < TOLERANCE
    assert fast.report().encoder == "compiled, fp32" and "vision encoder: compiled, fp32, " in str(fast.report())


def test_features_depend_neither_on_other_frames_nor_on_threads():
    module, nobs = shared(), observations(batch=5)
    native = NativeEncoder(module, threads=1)
    together = native(nobs)
    for row in range(5):
        for step in range(2):
            alone = native({name: value[row : row + 1, step : step + 1] for name, value in nobs.items()})
            assert torch.equal(alone[0, 0], together[row, step])
    for threads in (2, 5):
        assert torch.equal(NativeEncoder(module, threads=threads)(nobs), together)


def test_bf16_moves_the_features_a_little_and_the_same_way_in_any_batch():
    if "bfloat" not in levels.choose_level(build.library()).formats:
        pytest.skip("this processor does not multiply bfloat16")
    module, nobs = shared(), observations(batch=3)
    rounded = NativeEncoder(module, "bf16", threads=1)(nobs)
    assert 0 < error(rounded, features(module, nobs)) < BF16_TOLERANCE
    assert torch.equal(NativeEncoder(module, "bf16", threads=3)(nobs), rounded)


def test_a_frame_that_was_there_before_is_not_encoded_again():
    native, nobs = NativeEncoder(shared(), threads=1), observations(batch=2, steps=5)
    encoder = ReusingEncoder(native)
    for start, reused in ((0, 0), (1, 2), (1, 6), (3, 6)):  # the next frame, the same ones, two further on
        part = {name: value[:, start : start + 2].clone() for name, value in nobs.items()}
        part["speed"] += start  # which has to be that of now
        assert torch.equal(encoder(part), native(part)) and encoder.reused == reused
    part["front"][1, 0, 0, 20, 20] += 1e-3  # one pixel of one sample
    assert torch.equal(encoder(part), native(part)) and encoder.reused == 6
    assert encoder.frames == 20


def test_an_accelerated_policy_encodes_natively_and_leaving_restores_it():
    policy = image_policy()
    obs = policy.random_observation(1, torch.Generator().manual_seed(0))
    plain = policy.predict_action(obs, seeded(0))["action"]
    with accelerate(policy, runtime="compiled", threads=1) as fast:
        for _ in range(2):
            assert (fast.predict_action(obs, seeded(0))["action"] - plain).abs().max() < 1e-4
        twin = copy.deepcopy(policy)
        assert twin.acting_encoder is not policy.acting_encoder
        assert (twin.predict_action(obs, seeded(0))["action"] - plain).abs().max() < 1e-4
        with torch.no_grad():
            next(policy.obs_encoder.parameters()).add_(0.1)
        with pytest.raises(RuntimeError, match=r"weights changed .* call accelerate\(\) again"):
            fast.predict_action(obs, seeded(0))
    report = fast.report()
    assert (report.encoder, report.frames, report.reused_frames) == ("compiled, fp32", 4, 2) and report.encoder_ms > 0
    assert "vision encoder: compiled, fp32, " in str(report) and "2 of 4 frames reused" in str(report)
    assert policy.acting_encoder is None


def test_training_mode_and_random_crops_are_refused():
    native, nobs = NativeEncoder(encoder_of(group_norm=False), threads=1), observations()
    native.module.train()
    with pytest.raises(RuntimeError, match=r"training mode: call policy.eval\(\) first"):
        native(nobs)
    native.module.eval().random_crops = True
    with pytest.raises(RuntimeError, match="without random crops"):
        native(nobs)


class Dimmed(nn.ReLU):
    def forward(self, x):
        return super().forward(x) / 2


def swap_relu(encoder):
    encoder.obs_nets["front"].backbone.nets[2] = Dimmed()


def hook(encoder):
    encoder.obs_nets["front"].pool.register_forward_hook(lambda *_: None)


def dilate(encoder):
    encoder.obs_nets["front"].backbone.nets[4][0].conv1.dilation = (2, 2)


def crop_anywhere(encoder):
    encoder.fixed_crop = False


CHANGES = {swap_relu: "Dimmed", hook: "has a forward hook", dilate: "another form", crop_anywhere: "random places"}


@pytest.mark.parametrize(("change", "reason"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_encoder_that_is_not_known_runs_in_pytorch_and_the_report_says_so(change, reason):
    policy = image_policy()
    policy.obs_encoder.obs_nets["front"] = policy.obs_encoder.obs_nets["agentview_image"]  # a name for it
    change(policy.obs_encoder)
    assert reason in (why_unknown(policy.obs_encoder) or "")
    with accelerate(policy, runtime="compiled") as fast:
        assert policy.acting_encoder is None
    report = fast.report()
    assert report.encoder.startswith("PyTorch, as it") and reason in str(report) and report.encoder_ms is None


def test_other_runtimes_leave_the_encoder_to_pytorch():
    policy = image_policy()
    assert accelerate(policy, runtime="planned").report().encoder == "PyTorch"


WRONG = {
    "channels": [0, 5, 1000],
    "top": [-1, 40],
    "crop_height": [0, 10_000],
    "pool": [0, 100],
    "blocks": [0, -1],
    "keypoints": [0, 33],
    "features": [0, 10_000],
    "at": [-1, 10_000],
    "column": [None],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_sizes_that_do_not_fit_are_refused(field, value):
    native = NativeEncoder(small(), threads=1)
    setattr(native.native.camera[0], field, value)
    with pytest.raises(NativeError, match="vision encoder was given .* does not fit together"):
        native({"eye": torch.zeros(1, 1, 3, 32, 32)})


def test_convolutions_that_do_not_fit_are_refused():
    native = NativeEncoder(small(), threads=1)
    native.native.camera[0].block[2].shortcut.weight.data = None
    with pytest.raises(NativeError, match="a shortcut"):
        native({"eye": torch.zeros(1, 1, 3, 32, 32)})
    native.native.camera[0].block[0].first.weight.k = 64
    with pytest.raises(NativeError, match="a block"):
        native({"eye": torch.zeros(1, 1, 3, 32, 32)})
    with pytest.raises(ValueError, match=r"threads must lie in 1..1024"):
        NativeEncoder(small(), threads=5000)({"eye": torch.zeros(1, 1, 3, 32, 32)})
    assert engine.MAX_THREADS == 1024


@functools.cache
def small():
    return ObservationEncoder({"eye": (3, 32, 32)}, ("eye",), None, True, True).eval()
