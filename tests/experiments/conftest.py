"""A tiny Push-T policy on disk: real environment, real files, seconds instead of minutes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bac_workbench.settings import check
from diffusion_policy.common.config import register_resolvers
from tests.tiny_policy import CONFIG, save_tiny_policy

TINY = ["device=cpu", "threads=1"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random 2-layer policy for Push-T in this project's form."""
    return save_tiny_policy(tmp_path_factory.mktemp("checkpoint"), "pusht_lowdim", (0.0, 512.0), (0.0, 512.0))


@pytest.fixture(scope="module")
def first_assets(tmp_path_factory) -> Path:
    """Where a module keeps what `made_once` made."""
    return tmp_path_factory.mktemp("first") / "assets"


def made_once(kept: Path, folder: Path, make: Callable[[], object]) -> Path:
    """`folder` as `make` leaves it, copied from `kept` once that is there."""
    if kept.exists():
        shutil.copytree(kept, folder)
    else:
        make()
        shutil.copytree(folder, kept)
    return folder


@pytest.fixture
def make_cfg(checkpoint, tmp_path):
    """make_cfg('cache=bac', ...) -> eval config on the tiny policy, everything written under tmp_path."""

    def make(*overrides: str, script: str = "eval") -> DictConfig:
        register_resolvers()
        usual = [
            *TINY,
            *(["sampler.steps=8"] if script != "tune" else []),
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


@pytest.fixture
def make_settings(make_cfg):
    """make_settings('cache=bac', ...) -> the same, checked and typed; of the full policy unless a cache is named."""

    def make(*overrides: str):
        named = any(override.startswith("cache") for override in overrides)
        overrides = overrides if named else ("cache=full", *overrides)
        return check(make_cfg(*overrides), "eval", [*overrides])

    return make
