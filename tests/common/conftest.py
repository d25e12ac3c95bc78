"""A small trained-looking policy and the original-format payload of it, for tests of loading."""

from __future__ import annotations

import pytest
import torch

from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_checkpoints import lowdim_config, lowdim_payload


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    policy = build_policy(lowdim_config())
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3) * 7, "action": torch.rand(50, 2) * 500}))
    return policy.requires_grad_(False)


@pytest.fixture
def payload(policy) -> dict:
    return lowdim_payload(policy)
