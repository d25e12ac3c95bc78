"""Sound checkpoints with more in them than a policy needs: wrapped names, NumPy's numbers."""

from __future__ import annotations

import datetime
import pathlib
import pickle

import numpy as np
import pytest
import torch

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import WEIGHTS_FILE, save_policy
from diffusion_policy.common.restricted_unpickler import plain_config, plain_number, restricted_loads
from diffusion_policy.common.weight_names import policy_names
from tests.original_checkpoints import lowdim_config, saved


def renamed(payload: dict, rename) -> dict:
    states = payload["state_dicts"]
    for kind in ("model", "ema_model"):
        states[kind] = {rename(name): value for name, value in states[kind].items()}
    return payload


def assert_same(loaded, policy) -> None:
    own = loaded.policy.state_dict()
    assert all(torch.equal(own[name], value) for name, value in policy.state_dict().items())


# ---- names ----
def inside(part: str, wrapper: str):
    """As when only this part of the policy was wrapped."""
    return lambda name: name.replace(part, f"{part}{wrapper}.", 1) if name.startswith(part) else name


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"policy.{name}",
        lambda name: f"model.module.{name}",
        lambda name: f"a.b.c.{name}",
        lambda name: f"model.{name}",
        inside("model.", "module"),
        inside("model.decoder.", "_orig_mod"),
        lambda name: "module." + inside("model.", "_orig_mod")(name),
        lambda name: "_fsdp_wrapped_module." + inside("model.decoder.layers.0.", "_checkpoint_wrapped_module")(name),
        lambda name: "agent." + inside("normalizer.", "module")(name),
    ],
)
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_prefixes_of_wrappers_are_taken_off_and_it_is_said(tmp_path, policy, payload, rename, weights):
    plain = load_policy(saved(tmp_path / "plain.ckpt", payload), weights)
    loaded = load_policy(saved(tmp_path / "x.ckpt", renamed(payload, rename)), weights)
    assert loaded.hash == plain.hash and plain.notes == ()
    assert len(loaded.notes) == 1 and "prefixes of wrappers" in loaded.notes[0] and loaded.notes[0] in str(loaded)
    if weights == "ema":
        assert_same(loaded, policy)


def test_an_averaged_model_is_read_without_its_counter(tmp_path, policy, payload):
    renamed(payload, lambda name: f"module.{name}")["state_dicts"]["ema_model"]["n_averaged"] = torch.tensor(9)
    assert_same(load_policy(saved(tmp_path / "x.ckpt", payload)), policy)


def test_a_folder_with_wrapped_names_loads_too(tmp_path, policy):
    from safetensors import safe_open
    from safetensors.torch import save_file

    save_policy(tmp_path, policy, lowdim_config(), {"weights": "ema"}, half=False)
    with safe_open(tmp_path / WEIGHTS_FILE, "pt") as file:
        tensors, header = {f"module.{name}": file.get_tensor(name) for name in file.keys()}, file.metadata()
    save_file(tensors, tmp_path / WEIGHTS_FILE, header)
    assert_same(load_policy(tmp_path), policy)


def test_wrapped_names_that_are_incomplete_are_listed_without_the_wrapper(tmp_path, payload):
    states = renamed(payload, lambda name: f"module.{name}")["state_dicts"]
    states["ema_model"]["module.model.extra"] = states["ema_model"].pop("module.model.head.bias")
    with pytest.raises(CheckpointError, match="missing: model.head.bias; unexpected: model.extra"):
        load_policy(saved(tmp_path / "x.ckpt", payload))


def test_two_tensors_never_get_one_name(policy):
    own = list(policy.state_dict())
    with pytest.raises(CheckpointError, match="would both be model.head.bias"):
        policy_names([*map(inside("model.", "module"), own), "model.head.bias"], policy)
    assert policy_names(own, policy) == ({name: name for name in own}, None)
    assert policy_names([], policy) == ({}, None)


# ---- numbers ----
@pytest.mark.parametrize("module", ["pickle", "dill"])
@pytest.mark.parametrize(
    "step",
    [
        np.int64(7),
        np.int32(7),
        np.uint8(7),
        np.float64(7.0),
        np.float32(7),
        7.0,
        np.array(7),
        np.array([7]),
        np.int64(7).newbyteorder(">") if hasattr(np.int64(7), "newbyteorder") else np.array(7, ">i4"),
    ],
)
def test_a_number_of_numpy_is_the_step(tmp_path, policy, payload, step, module):
    writer = pytest.importorskip(module)
    payload["pickles"] = {"global_step": writer.dumps(step), "epoch": writer.dumps(np.arange(3))}
    loaded = load_policy(saved(tmp_path / "x.ckpt", payload, writer))
    assert loaded.step == 7 and type(loaded.step) is int and loaded.notes == ()
    assert_same(loaded, policy)


@pytest.mark.parametrize(
    "step", [np.float64(7.5), np.float64("nan"), np.int64(-1), 10**30, "7", True, None, np.arange(3), np.bool_(True)]
)
def test_what_is_no_step_is_unknown(tmp_path, payload, step):
    payload["pickles"]["global_step"] = pickle.dumps(step)
    assert load_policy(saved(tmp_path / "x.ckpt", payload)).step is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        np.int64(-5),
        np.uint16(9),
        np.float16(0.5),
        np.float32(2.5),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.int8(-1),
    ],
)
def test_scalars_are_plain_numbers(value, protocol):
    result = restricted_loads(pickle.dumps(value, protocol))
    assert result == value.item() and type(result) is type(value.item())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5),
        np.empty((0, 2)),
        np.arange(4, dtype=">i2"),
        np.array([True, False]),
    ],
)
def test_arrays_of_numbers_in_a_config_are_lists(array):
    assert plain_config(restricted_loads(pickle.dumps({"a": array}))) == {"a": array.tolist()}
    assert plain_number(restricted_loads(pickle.dumps(array))) == (3.5 if array.ndim == 0 else None)


def test_a_config_may_hold_paths_and_numbers_of_numpy(tmp_path, policy, payload):
    config = lowdim_config()
    config["policy"]["horizon"] = np.int64(8)
    config["data"] = {
        "folder": pathlib.PurePosixPath("/data/x"),
        "since": datetime.date(2024, 1, 2),
        "mean": np.ones(3),
    }
    loaded = load_policy(saved(tmp_path / "x.ckpt", {**payload, "cfg": config}))
    assert loaded.config["policy"]["horizon"] == 8
    assert_same(loaded, policy)
    config["policy"]["horizon"] = datetime.date(2024, 1, 2)
    with pytest.raises(CheckpointError, match="policy.horizon has no value"):
        load_policy(saved(tmp_path / "x.ckpt", {**payload, "cfg": config}))
