"""Original checkpoints of the image policy: names, tensors that are listed twice, the normalizer by observation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from bac_workbench.setup.conversion import convert
from diffusion_policy.common.checkpoint import load_policy, weights_hash
from diffusion_policy.common.config import CheckpointError, to_plain
from diffusion_policy.common.policy_files import WEIGHTS_FILE, build_policy
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from tests.original_checkpoints import image_config, image_payload, saved

CAMERA = {"shape": [3, 40, 40], "type": "rgb"}
SHAPE_META = {"obs": {"agentview_image": CAMERA, "robot0_eef_pos": {"shape": [3]}}, "action": {"shape": [10]}}
CONFIG = image_config("can_image", SHAPE_META, [36, 36])
CAMERA_NETS = "obs_encoder.obs_nets.agentview_image."


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    policy = build_policy({"policy": to_plain(OmegaConf.create(CONFIG))["policy"]})
    policy.set_normalizer(
        LinearNormalizer(
            {
                "agentview_image": FieldNormalizer.image(),
                "robot0_eef_pos": FieldNormalizer.fit(torch.rand(20, 3)),
                "action": FieldNormalizer.fit(torch.rand(20, 10)),
            }
        )
    )
    return policy.requires_grad_(False)


@pytest.fixture
def payload(policy) -> dict:
    return image_payload(policy, CONFIG)


@pytest.fixture
def ema_payload(payload) -> dict:
    """Without the raw weights: small."""
    del payload["state_dicts"]["model"]
    return payload


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_policy(path)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def test_the_state_dict_has_the_names_of_the_original(policy):
    state = policy.state_dict()
    fields = [f"normalizer.params_dict.{name}" for name in ("agentview_image", "robot0_eef_pos", "action")]
    expected = {"_dummy_variable", "mask_generator._dummy_variable"}
    expected |= {f"{field}.{name}" for field in fields for name in ("scale", "offset")}
    expected |= {f"{field}.input_stats.{name}" for field in fields for name in ("min", "max", "mean", "std")}
    parts = ("backbone.nets.", "pool.", "nets.0.nets.", "nets.1.", "nets.3.")
    assert expected <= set(state)
    assert all(name.startswith(("model.", *(CAMERA_NETS + part for part in parts))) for name in set(state) - expected)
    for name, value in state.items():
        if name.startswith(CAMERA_NETS + "backbone."):
            assert value.data_ptr() == state[name.replace("backbone.", "nets.0.")].data_ptr()
    assert state["normalizer.params_dict.agentview_image.scale"].shape == (1,)


@pytest.mark.parametrize("module", ["pickle", "dill"])
def test_ema_and_raw_weights_load(tmp_path, policy, payload, module):
    path = saved(tmp_path / "latest.ckpt", payload, pytest.importorskip(module))
    ema, raw = load_policy(path), load_policy(path, weights="raw")
    assert (ema.format, ema.step, ema.config["task"]) == ("original", 77, "can_image") and not ema.policy.training
    for loaded, state in ((ema, payload["state_dicts"]["ema_model"]), (raw, payload["state_dicts"]["model"])):
        own = loaded.policy.state_dict()
        assert own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)
    obs = policy.random_observation(1, torch.Generator().manual_seed(0))
    a, b, c = (
        p.predict_action(obs, torch.Generator().manual_seed(0))["action"] for p in (policy, ema.policy, raw.policy)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_hash_depends_on_the_vision_encoder_too(policy):
    """Another encoder shows the denoiser other observations: schedules profiled with it are not for this policy."""
    other = copy.deepcopy(policy)
    assert weights_hash(other) == weights_hash(policy)
    other.normalizer["action"].scale.data += 1
    assert weights_hash(other) == weights_hash(policy)
    other.obs_encoder.obs_nets["agentview_image"].backbone.nets[0].weight.data[0, 0, 0, 0] += 1e-3
    changed = weights_hash(other)
    assert changed != weights_hash(policy)
    other.model.head.bias.data[0] += 1e-6
    assert weights_hash(other) not in (changed, weights_hash(policy))


def test_missing_unexpected_and_contradicting_tensors(tmp_path, ema_payload):
    payload, states = ema_payload, ema_payload["state_dicts"]
    complete, path = states["ema_model"], tmp_path / "x.ckpt"
    missing, repeated = f"{CAMERA_NETS}nets.3.bias", f"{CAMERA_NETS}nets.0.nets.0.weight"
    states["ema_model"] = {
        **{name: value for name, value in complete.items() if name != missing},
        "extra": torch.ones(1),
    }
    assert f"missing: {missing}; unexpected: extra" in refusal(saved(path, payload))
    states["ema_model"] = {name: value for name, value in complete.items() if ".nets.1.bias" not in name}
    assert f"missing: {CAMERA_NETS}backbone.nets.1.bias" in refusal(saved(path, payload))
    states["ema_model"] = {**complete, repeated: complete[repeated] + 1}
    message = refusal(saved(path, payload))
    assert f"{repeated} and {CAMERA_NETS}backbone.nets.0.weight are one tensor of the policy but differ" in message
    states["ema_model"] = {**complete, repeated: complete[repeated][:, :1]}
    assert repeated in refusal(saved(path, payload))


def test_the_normalizer_must_know_every_observation(tmp_path, ema_payload):
    states = ema_payload["state_dicts"]
    states["ema_model"] = {
        name: value for name, value in states["ema_model"].items() if "dict.agentview_image" not in name
    }
    message = refusal(saved(tmp_path / "x.ckpt", ema_payload))
    assert "needs 'agentview_image' of size 1; it holds {'action': 10, 'robot0_eef_pos': 3}" in message


@pytest.mark.parametrize("name", [f"{CAMERA_NETS}backbone.nets.7.1.conv2.weight", f"{CAMERA_NETS}pool.pos_x"])
def test_weights_that_are_not_finite(tmp_path, ema_payload, name):
    state = ema_payload["state_dicts"]["ema_model"]
    repeated = name.replace("backbone", "nets.0").replace("pool", "nets.1")
    state[name] = state[repeated] = torch.full_like(state[name], torch.nan)
    assert f"NaN or infinite values in {name}" in refusal(saved(tmp_path / "x.ckpt", ema_payload))


def test_conversion_writes_every_tensor_once(tmp_path, ema_payload, capsys):
    written = convert(saved(tmp_path / "x.ckpt", ema_payload), tmp_path / "out")
    count = sum(p.numel() for p in written.policy.parameters())
    assert (tmp_path / "out" / WEIGHTS_FILE).stat().st_size < 2 * count + 50_000
    state = ema_payload["state_dicts"]["ema_model"]
    for name, value in written.policy.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=1e-3, rtol=1e-3)
    assert "half precision changes a weight by at most" in capsys.readouterr().out
