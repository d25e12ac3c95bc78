"""Loading and converting policies: what loads is exact, what cannot be loaded says why."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bac_workbench.commands import convert_checkpoint
from bac_workbench.setup import conversion
from bac_workbench.setup.conversion import convert
from diffusion_policy.common.checkpoint import load_policy, weights_hash
from diffusion_policy.common.config import CheckpointError, ConfigError
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE, build_policy, save_policy
from tests.original_checkpoints import POLICY, lowdim_config, saved

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def original(tmp_path, payload) -> Path:
    return saved(tmp_path / "epoch=0056-test_mean_score=1.000.ckpt", payload)


@pytest.fixture
def folder(tmp_path, policy) -> Path:
    save_policy(tmp_path / "ours", policy, lowdim_config(), {"weights": "ema", "step": "7"}, half=False)
    return tmp_path / "ours"


def act(policy) -> torch.Tensor:
    obs = {"obs": torch.ones(2, policy.n_obs_steps, policy.obs_dim)}
    return policy.predict_action(obs, torch.Generator().manual_seed(0))["action"]


def refusal(path, **kwargs) -> str:
    """The message of the error that loading ends with; always one screen."""
    with pytest.raises(CheckpointError) as caught:
        load_policy(path, **kwargs)
    message = str(caught.value)
    assert len(message) < 1500 and message.count("\n") < 10
    return message


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


# ---- hostile files ----
class Touch:
    """Pickles as a call that creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("place", ["cfg", "cfg value", "weights", "optimizer", "pickles", "unknown pickles", "top"])
def test_code_anywhere_in_the_file_is_refused_and_not_run(tmp_path, payload, place):
    touch = Touch(tmp_path / "executed")
    if place == "cfg":
        payload["cfg"] = touch
    elif place == "cfg value":
        payload["cfg"] = {**lowdim_config(), "extra": [touch]}
    elif place == "weights":
        payload["state_dicts"]["ema_model"]["model.pos_emb"] = touch
    elif place == "optimizer":
        payload["state_dicts"]["optimizer"] = touch
    elif place == "pickles":
        payload["pickles"]["epoch"] = pickle.dumps(touch)
    elif place == "unknown pickles":
        payload["pickles"]["other"] = pickle.dumps({"a": touch})
    else:
        payload["extra"] = touch
    message = refusal(saved(tmp_path / "x.ckpt", payload))
    assert "io.open" in message and "Nothing was executed" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("where", "target"),
    [
        (("policy",), "os.system"),
        (("policy",), "diffusers.schedulers.scheduling_ddpm.DDPMScheduler"),
        (("policy",), None),
        (("policy",), ["x"]),
        (("policy", "model"), "subprocess.run"),
        (("policy", "noise_scheduler"), "builtins.eval"),
        (("policy", "noise_scheduler"), "torch.load"),
        (("policy", "extra"), "hydra.utils.instantiate"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "original"])
def test_a_config_builds_only_supported_targets(folder, tmp_path, payload, where, target, form):
    config = copy.deepcopy(lowdim_config())
    node = config
    for key in where:
        node = node.setdefault(key, {})
    node["_target_"] = target
    if form == "folder":
        (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
        message = refusal(folder)
    else:
        message = refusal(saved(tmp_path / "x.ckpt", {**payload, "cfg": OmegaConf.create(config)}))
    assert repr(target) in message and POLICY in message and f"{where[-1]}._target_" in message


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:BAC_TEST_SECRET}",
        "\\${oc.env:BAC_TEST_SECRET}",
        "${eval:'${oc.env:BAC_TEST_SECRET}'}",
        "${oc.${x}:BAC_TEST_SECRET}",
    ],
)
def test_a_config_cannot_read_the_environment(folder, monkeypatch, value):
    monkeypatch.setenv("BAC_TEST_SECRET", "42")
    config = lowdim_config()
    config["task"] = value
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert "42" not in str(load_policy(folder).config["task"])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"horizon": 10**14}, "TransformerForDiffusion cannot be built"),  # more memory than there is
        ("model", {"surprise": [1]}, "unexpected keyword argument 'surprise'"),
        ("model", {"n_head": 3}, "divisible"),
        ("model", {"_partial_": True}, "_partial_"),
        ("noise_scheduler", {"beta_schedule": "x"}, "DDPMScheduler cannot be built"),
        ("policy", {"horizon": 1}, "exceeds horizon"),
        ("policy", {"model": None}, "do not fit"),
        ("policy", {"model": "${nowhere}"}, "cannot be resolved"),
        ("policy", {"n_obs_steps": "???"}, "cannot be resolved"),
        ("policy", {"horizon": "${eval:'().__class__'}"}, "cannot be resolved.*more than arithmetic"),
    ],
)
def test_a_config_that_cannot_be_built(folder, part, change, message):
    config = lowdim_config()
    (config["policy"] if part == "policy" else config["policy"][part]).update(change)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    assert re.search(message, refusal(folder))


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


# ---- conversion ----
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_full_precision_conversion_is_exact(tmp_path, original, weights, capsys):
    source = load_policy(original, weights)
    written = convert(original, tmp_path / "out", weights, half=False)
    loaded = load_policy(tmp_path / "out", weights)
    assert loaded.hash == written.hash == source.hash and loaded.step == 1234 and loaded.config == source.config
    assert torch.equal(act(loaded.policy), act(source.policy))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert written.source == tmp_path / "out" / WEIGHTS_FILE
    assert f"{weights.upper()} weights of {original}" in capsys.readouterr().out
    other = "raw" if weights == "ema" else "ema"
    assert f"holds {weights} weights only" in refusal(tmp_path / "out", weights=other)


def test_half_precision_conversion_is_close_and_says_how_close(tmp_path, original, capsys):
    source, written = load_policy(original), convert(original, tmp_path / "out")
    assert written.hash != source.hash and "half precision changes a weight by at most" in capsys.readouterr().out
    assert (act(written.policy) - act(source.policy)).abs().max() < 5  # of a range of 500
    for name, value in source.policy.normalizer.state_dict().items():
        assert torch.equal(written.policy.normalizer.state_dict()[name], value)
    with safe_open(tmp_path / "out" / WEIGHTS_FILE, "pt") as file:
        assert file.metadata()["source"] == original.name and file.metadata()["source_hash"] == source.hash


def test_conversion_does_not_overwrite_unasked_and_keeps_other_files(tmp_path, original):
    convert(original, tmp_path / "out", half=False)
    (tmp_path / "out" / "README.md").write_text("how it was trained")
    with pytest.raises(ConfigError, match="overwrite=true"):
        convert(original, tmp_path / "out", "raw", half=False)
    assert load_policy(tmp_path / "out").weights == "ema"
    convert(original, tmp_path / "out", "raw", half=False, overwrite=True)
    assert load_policy(tmp_path / "out", "raw").weights == "raw" and (tmp_path / "out" / "README.md").exists()


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, payload, original, monkeypatch):
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(conversion, "save_policy", lambda folder, *_: (folder.mkdir(), (folder / "half").touch(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        convert(original, tmp_path / "out")
    monkeypatch.undo()
    payload["state_dicts"]["ema_model"]["model.decoder.layers.0.norm1.weight"] = torch.full((16,), 1e6)
    saved(original, payload)
    with pytest.raises(ConfigError, match="use half=false"):
        convert(original, tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file"):
        convert(original, original)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint=<path> is missing"),
        (["checkpoint=a"], "output=<path> is missing"),
        (["a.ckpt"], "form key=value"),
        (["checkpoint=a", "output=b", "wieghts=ema"], "unknown setting wieghts"),
        (["checkpoint=a", "output=b", "half=maybe"], "half=true or half=false"),
        (["checkpoint=a", "output=b", "half=["], "half=true or half=false"),
    ],
)
def test_settings_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint.settings(arguments)


def test_settings_take_original_file_names_as_they_are():
    path = "x/epoch=0650-test_mean_score=1.000.ckpt"
    values = convert_checkpoint.settings([f"checkpoint={path}", "output=out", "half=false"])
    assert values == {"checkpoint": path, "output": "out", "weights": "ema", "half": False, "overwrite": False}


def test_the_command_ends_with_one_screen_and_status_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["convert_checkpoint.py", f"checkpoint={tmp_path / 'no.ckpt'}", f"output={tmp_path / 'out'}"]
    )
    with pytest.raises(SystemExit) as end:
        convert_checkpoint.main()
    assert end.value.code == 1 and "there is no checkpoint at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
