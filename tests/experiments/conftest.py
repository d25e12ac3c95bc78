"""A tiny Push-T policy on disk: real environment, real files, seconds instead of minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from diffusion_policy.common.config import register_resolvers, to_plain
from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer

CONFIG = str(Path(__file__).resolve().parents[2] / "config")
TINY = ["sampler.steps=8", "device=cpu", "threads=1"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random 2-layer policy for Push-T in this project's form."""
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        policy_config = to_plain(compose("eval", ["task=pusht_lowdim"]).task)["policy"]
    policy_config["model"].update(n_layer=2, n_emb=32)
    config = {"task": "pusht_lowdim", "policy": policy_config}
    torch.manual_seed(0)
    policy = build_policy(config)
    for parameter in policy.model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    corners = torch.tensor([[0.0], [512.0]])
    policy.set_normalizer(LinearNormalizer.fit({"obs": corners.expand(2, 20), "action": corners.expand(2, 2)}))
    folder = tmp_path_factory.mktemp("checkpoint")
    save_policy(folder, policy, config, {"weights": "ema", "step": "1"})
    return folder


@pytest.fixture
def make_cfg(checkpoint, tmp_path):
    """make_cfg('cache=bac', ...) -> eval config on the tiny policy, everything written under tmp_path."""

    def make(*overrides: str, script: str = "eval") -> DictConfig:
        register_resolvers()
        usual = [
            *TINY,
            "task=pusht_lowdim",
            f"checkpoint={checkpoint}",
            f"assets_dir={tmp_path}/assets",
            "profile.n_episodes=1",
            "profile.n_observations=2",
            "profile.noise_seeds=[0]",
        ]
        if script == "eval":
            usual += [
                f"output_dir={tmp_path}/out",
                "eval.n_test=3",
                "eval.n_envs=2",
                "eval.n_workers=0",
                "eval.n_videos=0",
                "benchmark.n_chunks=0",
                "task.environment.max_steps=24",
            ]
        with initialize_config_dir(CONFIG, version_base="1.3"):
            return compose(script, [*usual, *overrides])

    return make
