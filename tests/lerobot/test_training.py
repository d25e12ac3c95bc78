"""Collect, then train and profile on what was collected, by the commands themselves."""

from __future__ import annotations

import json

import pytest

from bac_workbench.commands.profile import profile_policy
from bac_workbench.commands.train import train
from bac_workbench.lerobot.collection import collect
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError


@pytest.fixture
def collected(settings):
    return collect(load_experiment(settings()), say=lambda line: None).output_dir


def test_collected_episodes_train_a_policy(collected, composed, tmp_path):
    small = ["n_layer=1", "n_emb=16", "n_head=2"]
    cfg = composed(
        "train",
        "dataset=lerobot",
        f"dataset.path={collected}",
        f"output_dir={tmp_path}/training",
        "training.max_steps=2",
        "training.batch_size=4",
        "training.precision=fp32",
        *[f"task.policy.model.{item}" for item in small],
    )
    train(cfg)
    lines = [json.loads(line) for line in (tmp_path / "training" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and lines[-1]["train_loss"] > 0
    assert (tmp_path / "training" / "latest.safetensors").is_file()


def test_a_policy_is_profiled_on_them(collected, composed, checkpoint, tmp_path, capsys):
    cfg = composed(
        "profile_blocks",
        "dataset=lerobot",
        f"dataset.path={collected}",
        f"checkpoint={checkpoint}",
        f"assets_dir={tmp_path}/assets",
        "profile.n_observations=2",
        "profile.noise_seeds=[0]",
        "schedules=[bac_s2]",
        "threads=1",
    )
    profile_policy(cfg)
    info = json.loads((tmp_path / "assets" / "pusht_lowdim" / "profile.json").read_text())
    assert info["observations"] == 2 and str(collected) in info["source"]
    assert (tmp_path / "assets" / "pusht_lowdim" / "schedules" / "bac_s2.json").is_file()


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("train", ["dataset=lerobot"], "dataset.path=null: name the folder of the data set"),
        (
            "profile_blocks",
            ["dataset=lerobot", "dataset.path=x", "profile.source=rollouts"],
            "rollouts look at no",
        ),
        ("collect", ["format=original", "scene=false"], "has a video of the scene"),
        ("collect", ["fps=0"], "above 0"),
        ("collect", ["format=zarr"], "use lerobot or original"),
    ],
)
def test_settings_that_contradict_each_other(composed, command, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check(composed(command, *overrides), command, overrides)
