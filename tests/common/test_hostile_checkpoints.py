"""Small files that ask for much memory or time, or would end the interpreter: each is a CheckpointError, soon."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import CONFIG_FILE, save_policy
from diffusion_policy.common.restricted_unpickler import restricted_loads
from tests.common.hostile import CONFIGS, PICKLES, archive
from tests.common.loading import refusal
from tests.original_checkpoints import POLICY, lowdim_config, saved

ROOT = Path(__file__).resolve().parents[2]
GIGABYTE = 2**30


def hostile_files(folder: Path, policy) -> list[Path]:
    """Every hostile pickle as a checkpoint, every hostile config beside sound weights, lies of zip and safetensors."""
    paths = [archive(folder / f"pickle {index}.ckpt", data) for index, data in enumerate(PICKLES.values())]
    for index, text in enumerate(CONFIGS.values()):
        save_policy(folder / f"config {index}", policy, lowdim_config(), {"weights": "ema"})
        (folder / f"config {index}" / CONFIG_FILE).write_text(text)
        paths.append(folder / f"config {index}")
    paths.append(archive(folder / "bomb.ckpt", bytes(200_000_000), compression=zipfile.ZIP_DEFLATED))
    return paths


CHILD = """
import resource, sys, time, warnings
import torch
from diffusion_policy.common.checkpoint import load_policy, weights_hash
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE, build_policy
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in sys.argv[1:]:
    started = time.process_time()
    try:
        load_policy(path)
    except CheckpointError as error:
        assert "more memory than there is" not in str(error), path
    else:
        raise SystemExit(path + " was loaded")
    assert time.process_time() - started < 10, path
print("all refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of address space")
def test_hostile_files_cost_less_than_a_gigabyte_and_ten_seconds_each(tmp_path, policy):
    paths = [str(path) for path in hostile_files(tmp_path, policy)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and "all refused" in done.stdout, done.stderr[-1000:]


# Read, as nothing in them can do harm; they are no checkpoints all the same.
READABLE = {
    "lists nested deeply",
    "tuples nested deeply",
    "config nodes nested deeply",
    "a list in itself",
    "pickles that are a number",
    "pickles that are numbers",
    "one pickle under many keys",
}


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_are_refused(tmp_path, name):
    if name in READABLE:
        restricted_loads(PICKLES[name])
    else:
        with pytest.raises(CheckpointError):
            restricted_loads(PICKLES[name])
    refusal(archive(tmp_path / "x.ckpt", PICKLES[name]))


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configs_are_refused(folder, name):
    (folder / CONFIG_FILE).write_text(CONFIGS[name])
    assert "config" in refusal(folder)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"n_layer": 1_000_000}),
        ("model", {"n_layer": 1_000}),
        ("model", {"n_emb": 60_000}),
        ("model", {"n_cond_layers": 10**9}),
        ("model", {"horizon": 50_000}),
        ("model", {"cond_dim": 2**40}),
        ("model", {"n_obs_steps": 10**7}),
        ("model", {"n_head": 10**9}),
        ("noise_scheduler", {"num_train_timesteps": 10**9}),
        ("noise_scheduler", {"trained_betas": [0.1] * 9}),
        ("policy", {"obs_dim": 10**12}),
        ("policy", {"n_obs_steps": 10**9}),
        ("policy", {"num_inference_steps": 10**12}),
    ],
)
def test_large_settings_are_compared_with_the_tensors_before_anything_is_built(folder, part, change):
    config = lowdim_config()
    (config["policy"] if part == "policy" else config["policy"][part]).update(change)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refusal(folder)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


# ---- code and configs ----
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
