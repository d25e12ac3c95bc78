"""Trainings of seconds on made-up demonstrations."""

from __future__ import annotations

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.conftest import ROOT
from tests.workspace.small_training import SMALL, demonstrations

CONFIG = str(ROOT / "config")


@pytest.fixture
def arguments(tmp_path):
    demonstrations(tmp_path / "demos.zarr")
    return [*SMALL, f"output_dir={tmp_path / 'out'}", f"task.dataset.zarr_path={tmp_path / 'demos.zarr'}"]


@pytest.fixture
def train(arguments):
    register_resolvers()

    def make(*overrides, **options):
        with initialize_config_dir(CONFIG, version_base=None):
            return TrainWorkspace(compose("train", overrides=[*arguments, *overrides]), **options)

    return make


@pytest.fixture
def train_condition_task(tmp_path):
    """(name, *overrides) -> a workspace on made-up Block Pushing demonstrations.

    The action is a bent function of the observation.
    """
    rng = np.random.default_rng(0)
    obs = rng.uniform(0.2, 0.4, (6, 60, 16)).astype(np.float32)
    action = 0.03 * np.sin(15 * obs[..., :2])
    write_replay_buffer(tmp_path / "demos.zarr", [{"obs": o, "action": a} for o, a in zip(obs, action)], {})
    register_resolvers()

    def make(name, *overrides):
        small = [
            "task=block_pushing",
            "device=cpu",
            f"output_dir={tmp_path / name}",
            "task.policy.model.n_emb=32",
            f"task.dataset.zarr_path={tmp_path / 'demos.zarr'}",
            "task.dataset.effector_noise=0",
            "task.dataset.symmetries=false",
            "training.precision=fp32",
            "task.dataset.windows.val_ratio=0.2",
            "training.log_every=10",
            "training.warmup_steps=5",
        ]
        with initialize_config_dir(CONFIG, version_base=None):
            return TrainWorkspace(compose("train", overrides=[*small, *overrides]))

    return make
