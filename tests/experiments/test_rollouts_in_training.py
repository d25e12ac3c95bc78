"""Rollouts that score a policy while it trains."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from bac_workbench.settings import check
from bac_workbench.training.rollouts import rollout_function
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import register_resolvers
from tests.tiny_policy import CONFIG

pytest.importorskip("pymunk")


def settings(*overrides: str):
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        return check(compose("train", ["task=pusht_lowdim", "device=cpu", *overrides]), "train", [*overrides])


def test_a_policy_is_scored_on_the_seeds_that_are_asked_for(checkpoint):
    score = rollout_function(
        settings("rollout.n_episodes=2", "rollout.n_envs=4", "rollout.seed_start=7", "task.environment.max_steps=8")
    )
    policy = load_policy(checkpoint).policy
    value = score(policy, 0)
    assert 0 <= value <= 1 and score(policy, 1) == value


def test_without_episodes_nothing_is_scored():
    assert rollout_function(settings("rollout.n_episodes=0")) is None
