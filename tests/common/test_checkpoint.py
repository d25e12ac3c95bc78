"""Loading policies: what loads is exact, what cannot be loaded says why."""

from __future__ import annotations

import copy
import json
import pickle
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_policy.common.checkpoint import load_policy, weights_hash
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE, build_policy
from tests.common.loading import act, refusal
from tests.original_checkpoints import lowdim_config, saved


# ---- the original project's files ----
@pytest.mark.parametrize("module", ["pickle", "dill"])
def test_an_original_checkpoint_loads_ema_by_default_and_raw_on_request(tmp_path, policy, payload, module):
    path = saved(tmp_path / "latest.ckpt", payload, pytest.importorskip(module))
    ema, raw = load_policy(path), load_policy(path, weights="raw")
    assert (ema.weights, ema.format, ema.step, ema.source) == ("ema", "original", 1234, path)
    assert ema.config == lowdim_config() and not ema.policy.training
    assert ema.policy.n_action_steps == 5  # 4 and 1 of latency: the `eval` string was evaluated
    for name, value in policy.state_dict().items():
        assert torch.equal(ema.policy.state_dict()[name], value), name
        assert torch.equal(raw.policy.state_dict()[name], value + 0.01 if name.startswith("model.") else value), name
    assert torch.equal(act(ema.policy), act(policy)) and not torch.equal(act(raw.policy), act(policy))
    assert ema.hash != raw.hash and "EMA" in str(ema) and "RAW" in str(raw) and ema.hash[:12] in str(ema)


def test_a_file_of_the_original_code(golden_dir):
    path = golden_dir / "original_format.ckpt"
    ema, raw = load_policy(path), load_policy(path, weights="raw")
    vectors = load_file(golden_dir / "tiny_lowdim" / "model.safetensors")
    for name, value in vectors.items():
        assert torch.equal(ema.policy.model.state_dict()[name], value), name
    for (name, a), b in zip(ema.policy.model.named_parameters(), raw.policy.model.parameters()):
        torch.testing.assert_close(b, a + 0.01, msg=name)
    case = json.loads((golden_dir / "tiny_lowdim" / "case.json").read_text())
    assert (
        ema.step == 1234
        and ema.config["task"] == "pusht_lowdim"
        and ema.policy.model.n_layer == case["model"]["n_layer"]
    )
    arrays = {
        name: torch.from_numpy(value).float()
        for name, value in np.load(golden_dir / "tiny_lowdim" / "arrays.npz").items()
    }
    with torch.no_grad():
        torch.testing.assert_close(ema.policy.model(arrays["x"], 37, arrays["cond"]), arrays["y"], atol=1e-5, rtol=0)


def test_weights_that_are_not_there_are_an_error_not_a_fallback(tmp_path, payload):
    del payload["state_dicts"]["ema_model"]
    path = saved(tmp_path / "x.ckpt", payload)
    assert "holds no ema weights; it holds raw: use weights=raw" in refusal(path)
    assert load_policy(path, weights="raw").weights == "raw"
    assert "use weights=ema or weights=raw" in refusal(path, weights="best")


def test_a_resolved_config_and_missing_pickles_load_too(tmp_path, payload):
    payload.update(cfg={"policy": lowdim_config()["policy"]}, pickles=None)
    loaded = load_policy(saved(tmp_path / "x.ckpt", payload))
    assert loaded.step is None and loaded.config["task"] is None and "unknown step" in str(loaded)


# ---- damaged and foreign files ----
def test_a_missing_path_says_where_checkpoints_come_from(tmp_path, original):
    message = refusal(tmp_path / "latest.ckpt")
    assert "there is no checkpoint at" in message and original.name in message
    assert "data server" in message and "experiments/low_dim/pusht/diffusion_policy_transformer" in message
    assert "data server" in refusal(tmp_path / "no" / "such" / "folder")


def test_a_folder_without_a_policy_names_those_below_it(tmp_path, folder, original):
    message = refusal(tmp_path)
    assert f"holds no {WEIGHTS_FILE}" in message and str(folder) in message and original.name in message


@pytest.mark.parametrize("kept", [0.0, 1e-5, 0.01, 0.3, 0.5, 0.9, 0.99, 0.9999])
def test_truncated_files(tmp_path, original, folder, kept):
    data = original.read_bytes()
    original.write_bytes(data[: int(kept * len(data))])
    assert any(word in refusal(original) for word in ("truncated", "empty", "no PyTorch file"))
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[: int(kept * len(data))])
    assert "truncated" in refusal(folder)


def test_a_flipped_bit_in_the_weights_is_noticed(original, policy):
    data = bytearray(original.read_bytes())
    value = policy.state_dict()["model.input_emb.weight"].numpy().tobytes()
    data[data.index(value) + 5] ^= 1
    original.write_bytes(data)
    assert "damaged" in refusal(original)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "no PyTorch file"),
        (pickle.dumps({"cfg": 1}), "a bare pickle"),
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
    ],
)
def test_foreign_files(tmp_path, content, message):
    path = tmp_path / "latest.ckpt"
    path.write_bytes(content)
    assert message in refusal(path)


def test_foreign_pytorch_files(tmp_path):
    path = tmp_path / "x.ckpt"
    for payload, held in [
        ({"state_dict": {"w": torch.ones(1)}, "epoch": 3}, "it holds 'state_dict', 'epoch'"),
        ([1], "it holds a list"),
        ({"cfg": {}}, "it holds 'cfg'"),
        ({"cfg": {}, "state_dicts": {}}, "holds no ema weights; it holds nothing"),
        ({"cfg": {}, "state_dicts": {"ema_model": {"w": 1}}}, "are no tensors: 'w'"),
        ({"cfg": {}, "state_dicts": {"ema_model": {}}}, "has no 'policy' section"),
        ({"cfg": {"policy": {}}, "state_dicts": {"ema_model": {}}, "pickles": {"step": 3}}, "pickles['step']"),
    ]:
        assert held in refusal(saved(path, payload))
    torch.save({"cfg": {}}, path, _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(path)


def test_incomplete_and_foreign_folders(folder, tmp_path, policy):
    (folder / CONFIG_FILE).rename(tmp_path / "kept.yaml")
    assert "config.yaml is missing" in refusal(folder)
    for text in ("policy: [", "\x00", "3", "task: x", "- 1"):
        (folder / CONFIG_FILE).write_text(text)
        assert "config" in refusal(folder)
    save_file({"w": torch.ones(1)}, folder / WEIGHTS_FILE)
    assert "does not say which weights" in refusal(folder)
    save_file({"w": torch.ones(1)}, tmp_path / "latest.safetensors", metadata={"state": "{}"})
    assert "training state" in refusal(tmp_path / "latest.safetensors")


def test_tensors_that_do_not_fit_are_listed_and_the_list_is_capped(tmp_path, payload):
    state = payload["state_dicts"]["ema_model"]
    state["model.pos_emb"] = torch.zeros(1, 9, 16)
    state["model.extra"] = state.pop("model.head.bias")
    message = refusal(saved(tmp_path / "x.ckpt", payload))
    assert "missing: model.head.bias; unexpected: model.extra" in message
    assert "of another shape: model.pos_emb (1, 9, 16) instead of (1, 8, 16)" in message
    payload["state_dicts"]["ema_model"] = {name: value for name, value in state.items() if "decoder" not in name}
    assert " and " in (message := refusal(saved(tmp_path / "x.ckpt", payload))) and " more" in message


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("normalizer.params_dict.obs.", "needs 'obs' of size 3; it holds {'action': 2}"),
        ("normalizer.", "needs 'action' of size 2; it holds {}"),
        ("normalizer.params_dict.action.offset", "missing: normalizer.params_dict.action.offset"),
    ],
)
def test_an_incomplete_normalizer(tmp_path, payload, field, message):
    state = payload["state_dicts"]["ema_model"]
    payload["state_dicts"]["ema_model"] = {name: value for name, value in state.items() if not name.startswith(field)}
    assert message in refusal(saved(tmp_path / "x.ckpt", payload))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["model.decoder.layers.1.linear1.weight", "normalizer.params_dict.action.scale"])
def test_weights_that_are_not_finite(tmp_path, payload, name, value):
    state = {key: tensor.clone() for key, tensor in payload["state_dicts"]["ema_model"].items()}
    state[name].view(-1)[0] = value
    payload["state_dicts"]["ema_model"] = state
    assert f"NaN or infinite values in {name}" in refusal(saved(tmp_path / "x.ckpt", payload))


def test_devices_and_steps(folder):
    assert load_policy(folder, num_inference_steps=4).policy.sampler.num_inference_steps == 4
    for steps in (0, 11, 2.5):
        assert "use 1 to 10" in refusal(folder, num_inference_steps=steps)
    with pytest.raises(ConfigError, match="unknown device"):
        load_policy(folder, device="tpu9")


# ---- this project's form ----
def test_a_folder_and_its_file_load(folder, policy):
    for path in (folder, str(folder), folder / WEIGHTS_FILE):
        loaded = load_policy(path)
        assert (loaded.weights, loaded.format, loaded.step) == ("ema", "folder", 7) and loaded.config == lowdim_config()
        assert torch.equal(act(loaded.policy), act(policy)) and loaded.hash == weights_hash(policy)
    assert "holds ema weights only: use weights=ema" in refusal(folder, weights="raw")


def test_the_hash_of_a_lowdimensional_policy_depends_on_the_denoiser_alone(policy):
    other = copy.deepcopy(policy)
    other.normalizer["obs"].scale.data += 1
    assert weights_hash(other) == weights_hash(policy) and len(weights_hash(policy)) == 64
    other.model.head.bias.data[0] += 1e-6
    assert weights_hash(other) != weights_hash(policy)


def test_the_hash_of_nine_million_parameters_is_fast():
    config = lowdim_config()
    config["policy"]["model"].update(n_layer=8, n_head=4, n_emb=256)
    large = build_policy(config)
    assert sum(p.numel() for p in large.parameters()) > 8.9e6
    started = time.process_time()
    weights_hash(large)
    assert time.process_time() - started < 0.5
