"""accelerate() on the image policy: it sees the policy's sampler and denoiser only, so nothing is different."""

from __future__ import annotations

import pytest
import torch

from bac import accelerate
from bac.denoiser import model_blocks
from bac.profiling import profile_features
from bac.uniform import uniform
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from diffusion_policy.policy.diffusion_transformer_hybrid_image_policy import DiffusionTransformerHybridImagePolicy
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import TOLERANCE, error, every_runtime, hoisting_runtime, randomise, scheduler_of, seeded

STEPS = 10
SIZES = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")


def image_policy(**changes) -> DiffusionTransformerHybridImagePolicy:
    """Can's shapes (feature 137, horizon 10, 2 observation steps) on a narrow Transformer and small images."""
    obs = {name: {"shape": [3, 40, 40], "type": "rgb"} for name in CAMERAS}
    obs.update({name: {"shape": [size]} for name, size in SIZES.items()})
    scheduler, step_kwargs = scheduler_of("ddpm")
    torch.manual_seed(0)
    policy = DiffusionTransformerHybridImagePolicy(
        {"obs": obs, "action": {"shape": [10]}},
        scheduler,
        10,
        8,
        2,
        STEPS,
        (36, 36),
        True,
        True,
        n_layer=2,
        n_head=2,
        n_emb=32,
        **changes,
        **step_kwargs,
    )
    randomise(policy.model, 0)
    policy.set_normalizer(
        LinearNormalizer(
            {
                **{name: FieldNormalizer.image() for name in CAMERAS},
                **{name: FieldNormalizer.identity(size) for name, size in {**SIZES, "action": 10}.items()},
            }
        )
    )
    return policy.eval()


@pytest.fixture(scope="module")
def policy() -> DiffusionTransformerHybridImagePolicy:
    return image_policy()


@pytest.fixture(scope="module")
def observation(policy) -> torch.Tensor:
    """Two encoded observations, [2, 2, 137]."""
    return policy.encode_observation(policy.random_observation(2, torch.Generator().manual_seed(0)))


@every_runtime
def test_predictions_are_those_of_the_plain_policy(policy, runtime):
    obs = policy.random_observation(1, torch.Generator().manual_seed(0))
    plain = policy.predict_action(obs, seeded(0))["action"]
    own = policy.sampler
    with accelerate(policy, None, runtime) as fast:
        assert error(fast.predict_action(obs, seeded(0))["action"], plain) < TOLERANCE
    assert policy.sampler is own and fast.report().chunks == 1
    with accelerate(policy, uniform(model_blocks(policy.model), STEPS, 4), runtime) as fast:
        cached = fast.predict_action(obs, seeded(0))["action"]
    assert cached.shape == (1, 8, 10) and 1e-4 < error(cached, plain)


def sample(policy, runtime, observation) -> torch.Tensor:
    inputs = SamplerInputs(observation.new_zeros(2, *policy.trajectory_shape), observation=observation)
    with accelerate(policy, uniform(model_blocks(policy.model), STEPS, 4), runtime) as fast:
        return fast.sampler(inputs, seeded(0, 1))


@hoisting_runtime
def test_runtimes_agree_on_a_schedule(policy, observation, runtime):
    reference = sample(policy, "reference", observation)
    assert reference.shape == (2, 9, 10) and error(sample(policy, runtime, observation), reference) < TOLERANCE


def test_a_policy_that_predicts_only_the_executed_chunk(observation):
    """Its denoiser has position embeddings for the whole horizon; the trajectory is shorter."""
    policy = image_policy(pred_action_steps_only=True)
    reference = sample(policy, "reference", observation)
    assert reference.shape == (2, 8, 10) and error(sample(policy, "planned", observation), reference) < TOLERANCE


def test_profiling_takes_what_the_policy_makes_of_observations(policy):
    inputs = policy.sampler_inputs(policy.random_observation(2, torch.Generator().manual_seed(0)))
    matrices = profile_features(policy.sampler, inputs, (0,))
    assert set(matrices["cosine"]) == set(model_blocks(policy.model)) and not inputs.observation.requires_grad
