"""Damaged training states are refused with the file's name."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffusion_policy.common.config import ConfigError
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.training_state import Progress, read_state, write_state
from tests.bac.tiny_policies import tiny_policy


@pytest.fixture
def training(tmp_path):
    learner = tiny_policy()
    trained = list(learner.model.parameters())
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer.step()
    parts = learner, EMAModel(copy.deepcopy(learner)), optimizer
    write_state(tmp_path / "latest.safetensors", *parts, Progress(1, 1))
    return parts


def changed(path, change) -> None:
    with safe_open(path, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    change(tensors)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("optimizer.0.step"),
        lambda tensors: tensors.update({"optimizer.-1.step": torch.zeros(())}),
        lambda tensors: tensors.update({"optimizer.0.step": torch.zeros(3)}),
        lambda tensors: tensors.update({"optimizer.0": torch.zeros(3)}),
        lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1)}),
    ],
    ids=["no step", "a negative number", "three steps", "no key", "another shape"],
)
def test_moments_of_another_optimizer_are_refused(training, tmp_path, change):
    path = tmp_path / "latest.safetensors"
    read_state(path, *training, torch.device("cpu"))
    changed(path, change)
    with pytest.raises(ConfigError, match="holds the optimizer of other parameters"):
        read_state(path, *training, torch.device("cpu"))


def test_a_shape_that_no_tensor_has_is_refused(training, tmp_path):
    path = tmp_path / "latest.safetensors"
    changed(path, lambda tensors: tensors.update(x=torch.zeros(1)))
    content = path.read_bytes()
    at = content.index(b'"x":{')
    shape = content.index(b'"shape":[1]', at)
    header = (
        content[8:shape]
        + b'"shape":['
        + b",".join([b"1"] * 70)
        + b"]"
        + content[shape + 11 : 8 + int.from_bytes(content[:8], "little")]
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + int.from_bytes(content[:8], "little") :])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_state(path, *training, torch.device("cpu"))
