"""A working directory with checkpoints as the released project keeps them: original format, its folders and names."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from bac_workbench.released import steps_command
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_checkpoints import LOWDIM_CONFIG, lowdim_payload, saved

BEST = "epoch=0650-test_mean_score=1.000.ckpt"
FOLDER = "{}/diffusion_policy_transformer/train_{}/checkpoints"
CHECKPOINT = Path("checkpoint", FOLDER.format("low_dim/pusht", 0), BEST)
#: everything that makes a command short, as settings behind its flags
SHORT = ["threads=1", "task.environment.max_steps=16"]
PROFILE = [*SHORT, "profile.n_episodes=1", "profile.n_observations=2", "profile.noise_seeds=[0]"]
EVAL = [*SHORT, "eval.n_test=2", "eval.n_envs=2", "eval.n_workers=0", "benchmark.n_chunks=1", "benchmark.warmup=0"]
SIZES = {
    "pusht_lowdim": {"obs": 20, "action": 2, "horizon": 16, "n_obs_steps": 2, "n_action_steps": 8},
    "blockpush_lowdim_seed": {"obs": 16, "action": 2, "horizon": 5, "n_obs_steps": 3, "n_action_steps": 1},
}


def write_original(path: Path, task: str = "pusht_lowdim", seed: int = 0, n_layer: int = 2) -> Path:
    """A random policy of 10 denoising steps, as the original project writes it.

    Args:
        task: as the original project's configuration calls it.
    """
    register_resolvers()
    size, config = SIZES[task], copy.deepcopy(LOWDIM_CONFIG)
    config |= {name: size[name] for name in ("horizon", "n_obs_steps", "n_action_steps")} | {"n_latency_steps": 0}
    config["task"] |= {"name": task, "obs_dim": size["obs"], "action_dim": size["action"]}
    config["policy"]["model"]["n_layer"] = n_layer
    torch.manual_seed(seed)
    resolved = OmegaConf.to_container(OmegaConf.create(config).policy, resolve=True)
    policy = build_policy({"task": task, "policy": resolved})
    for parameter in policy.model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.5)
    fields = {"obs": torch.rand(50, size["obs"]) * 500, "action": torch.rand(50, size["action"]) * 500}
    policy.set_normalizer(LinearNormalizer.fit(fields))
    path.parent.mkdir(parents=True, exist_ok=True)
    return saved(path, {**lowdim_payload(policy), "cfg": OmegaConf.create(config)})


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    pytest.importorskip("pymunk")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(place) -> Path:
    """The best checkpoint of the first training of low-dimensional Push-T, with an = in its name."""
    return write_original(CHECKPOINT)


@pytest.fixture(scope="package")
def prepared(tmp_path_factory) -> Path:
    """A working directory with the checkpoint and its schedules of 3 updates."""
    folder, before = tmp_path_factory.mktemp("prepared"), os.getcwd()
    os.chdir(folder)
    path = write_original(CHECKPOINT)
    flags = ["-c", str(path), "-o", "assets/pusht_lowdim", "-d", "cpu", "--num_caches", "3", "--metrics", "cosine"]
    steps_command.main([*flags, *PROFILE])
    os.chdir(before)
    return folder
