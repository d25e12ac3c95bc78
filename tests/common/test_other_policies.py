"""Policies of other kinds: the message says what they are and what can be done, on one screen."""

import json
import re

import pytest
import torch

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
from tests.original_checkpoints import saved


def said(path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_policy(path)
    message = str(error.value)
    assert len(message) < 900 and str(path) in message
    return message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("diffusion", "Diffusion Policy with a U-Net.*train one on the same data: bac train dataset=lerobot"),
        ("act", "one pass.*bac train dataset=lerobot"),
        ("multi_task_dit", "denoises with a DiT: load it with lerobot.*bac.cache"),
        ("pi0", "action expert.*bac.cache"),
        ("a_new_one", "LeRobot policy of type a_new_one, which is not read here"),
    ],
)
def test_a_lerobot_folder_is_named_by_its_type(tmp_path, kind, words):
    (tmp_path / "config.json").write_text(json.dumps({"type": kind}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert re.search(words, said(tmp_path))
    with pytest.raises(CheckpointError, match=words):
        load_policy(tmp_path / "model.safetensors")


@pytest.mark.parametrize("config", ["", "[]", '{"type": 3}', "[" * 100_000, '{"type": "a b\\n"}'])
def test_another_config_is_of_another_library(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert "holds a policy of another library (config.json)" in said(tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "diffusion_policy.policy.diffusion_unet_lowdim_policy.DiffusionUnetLowdimPolicy",
        "diffusion_policy.policy.diffusion_unet_hybrid_image_policy.DiffusionUnetHybridImagePolicy",
    ],
)
def test_an_original_unet_is_told_what_helps_it(tmp_path, target):
    payload = {"cfg": {"policy": {"_target_": target}}, "state_dicts": {"ema_model": {"model.w": torch.ones(2)}}}
    message = said(saved(tmp_path / "latest.ckpt", payload))
    assert target in message and "with a U-Net" in message and "num_inference_steps = 16" in message


def test_a_state_dict_alone_says_what_is_missing(tmp_path):
    path = saved(tmp_path / "weights.pt", {"model.head.weight": torch.ones(2, 2)})
    assert "It is a state dict: weights without the settings" in said(path)


def test_an_empty_file_and_an_empty_folder(tmp_path):
    (tmp_path / "latest.ckpt").write_bytes(b"")
    assert "is empty: give a checkpoint folder" in said(tmp_path / "latest.ckpt")
    (tmp_path / "nothing").mkdir()
    assert "holds no policy.safetensors" in said(tmp_path / "nothing")
