"""A small trained-looking policy and the original-format payload of it, for tests of loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_checkpoints import lowdim_config, lowdim_payload, saved


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    policy = build_policy(lowdim_config())
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3) * 7, "action": torch.rand(50, 2) * 500}))
    return policy.requires_grad_(False)


@pytest.fixture
def payload(policy) -> dict:
    return lowdim_payload(policy)


@pytest.fixture
def original(tmp_path, payload) -> Path:
    """The policy as a file of the original project."""
    return saved(tmp_path / "epoch=0056-test_mean_score=1.000.ckpt", payload)


@pytest.fixture
def folder(tmp_path, policy) -> Path:
    """The policy in this project's form."""
    save_policy(tmp_path / "ours", policy, lowdim_config(), {"weights": "ema", "step": "7"}, half=False)
    return tmp_path / "ours"
