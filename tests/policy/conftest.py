"""A policy on images that tests share."""

from __future__ import annotations

import pytest

from diffusion_policy.policy.diffusion_transformer_hybrid_image_policy import DiffusionTransformerHybridImagePolicy
from tests.policy.image_policies import make_small


@pytest.fixture(scope="session")
def small() -> DiffusionTransformerHybridImagePolicy:
    """One camera of 40 x 40 pixels; no test changes it."""
    return make_small()
