"""The image policy as a user calls it."""

from __future__ import annotations

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file

from bac_workbench.timing.latency import interleaved
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distinct_weights import complete_state, distinct_state, repeated_names
from diffusion_policy.common.policy_files import WEIGHTS_FILE, save_policy
from diffusion_policy.model.vision.observation_encoder import SmallCropWarning
from diffusion_policy.policy.diffusion_transformer_hybrid_image_policy import DiffusionTransformerHybridImagePolicy
from tests.policy.image_policies import CAN, PUSHT, SMALL, TRANSPORT, config_of, make_policy, make_small, seeded

# ---- acting ----------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_published_policies():
    for meta, features, millions in [(CAN, 137, 31.39), (TRANSPORT, 274, 53.8), (PUSHT, 66, 20.2)]:
        with torch.device("meta"):
            policy = DiffusionTransformerHybridImagePolicy(
                meta, DDPMScheduler(100), 10, 8, 2, obs_encoder_group_norm=True
            )
        total, denoiser = (sum(p.numel() for p in module.parameters()) for module in (policy, policy.model))
        assert policy.obs_dim == policy.model.cond_dim == features
        assert policy.trajectory_shape == (10, meta["action"]["shape"][0])
        assert total == pytest.approx(millions * 1e6, rel=2e-3) and denoiser == pytest.approx(9.0e6, rel=5e-3)


def test_shapes_and_units_on_two_cameras():
    policy = make_policy(CAN)
    obs = policy.random_observation(1, seeded(0))
    assert {name: tuple(value.shape[2:]) for name, value in obs.items()} == policy.obs_shapes
    features = policy.encode_observation(obs)
    assert features.shape == (1, 2, 137) and not features.requires_grad
    assert torch.equal(features[..., 128:131], policy.normalizer["robot0_eef_pos"].normalize(obs["robot0_eef_pos"]))
    result = policy.predict_action(obs, seeded(0))
    assert result["action"].shape == (1, 8, 10) and result["action_pred"].shape == (1, 10, 10)
    assert torch.equal(result["action"], result["action_pred"][:, 1:9])
    assert (-21 < result["action"]).all() and (result["action"] < -9).all()  # the action range of the data, not [-1, 1]


def test_only_the_executed_chunk():
    policy = make_small(pred_action_steps_only=True)
    obs = policy.random_observation(2, seeded(0))
    result = policy.predict_action(obs, seeded(0))
    assert result["action"].shape == result["action_pred"].shape == (2, 8, 2)
    batch = {**obs, "action": torch.rand(2, 10, 2) * 10 - 20}
    assert math.isfinite(policy.compute_loss(batch, seeded(0)).item())


@pytest.mark.parametrize("time_as_cond", [True, False])
def test_inpainting_gives_the_encoded_observations_of_the_first_steps(time_as_cond):
    policy = make_small(obs_as_cond=False, time_as_cond=time_as_cond)
    assert policy.trajectory_shape == (10, 2 + 66) and policy.model.cond_dim == 0 and policy.model.input_dim == 68
    obs = policy.random_observation(2, seeded(0))
    inputs = policy.sampler_inputs(obs)
    known, mask = inputs.known, inputs.mask
    assert inputs.observation is None and torch.equal(known[:, :2, 2:], policy.encode_observation(obs))
    expected = torch.zeros(2, 10, 68, dtype=torch.bool)
    expected[:, :2, 2:] = True
    assert torch.equal(mask, expected) and not known[~mask].any()
    sample = policy.sampler(inputs, seeded(1))
    assert torch.equal(sample[mask], known[mask])
    result = policy.predict_action(obs, seeded(1))
    assert torch.equal(result["action_pred"], policy.normalizer["action"].unnormalize(sample[..., :2]))
    assert torch.equal(result["action"], result["action_pred"][:, 1:9])
    with pytest.raises(ConfigError, match="exceed|pred_action_steps_only needs obs_as_cond"):
        make_small(obs_as_cond=False, pred_action_steps_only=True)


def test_inpainting_cannot_be_trained_on_images():
    policy = make_small(obs_as_cond=False).train()
    batch = {name: value.repeat_interleave(5, 1) for name, value in policy.random_observation(2, seeded(0)).items()}
    for training in (
        lambda: policy.optimizer_groups(1e-3),
        lambda: policy.compute_loss({**batch, "action": torch.rand(2, 10, 2)}),
    ):
        with pytest.raises(ConfigError, match="obs_as_cond=False does not go with training on images.*vision encoder"):
            training()


def test_a_policy_that_inpaints_loads_and_acts(tmp_path):
    policy = make_small(obs_as_cond=False)
    save_policy(
        tmp_path, policy, config_of(SMALL, crop_shape=[36, 36], obs_as_cond=False), {"weights": "ema"}, half=False
    )
    loaded = load_policy(tmp_path).policy
    obs = policy.random_observation(1, seeded(0))
    assert torch.equal(*(p.predict_action(obs, seeded(0))["action"] for p in (policy, loaded)))


def test_a_crop_of_a_small_part_of_the_images_warns_once(tmp_path):
    meta = {"obs": {"front": {"shape": [3, 120, 160], "type": "rgb"}}, "action": {"shape": [2]}}
    with pytest.warns(
        SmallCropWarning, match=r"crop_shape 76 x 76 leaves 30.1 % of the images of front, 120 x 160 pixels"
    ):
        policy = make_policy(meta)
    save_policy(tmp_path, policy, config_of(meta), {"weights": "ema"})
    with pytest.warns(SmallCropWarning, match="Set crop_shape to") as caught:
        load_policy(tmp_path)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "size, crop", [([84, 84], [76, 76]), ([240, 320], [216, 288]), ([96, 96], [76, 76]), ([240, 320], None)]
)
def test_usual_crops_do_not_warn(size, crop):
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmallCropWarning)
        make_policy({"obs": {"front": {"shape": [3, *size], "type": "rgb"}}, "action": {"shape": [2]}}, crop_shape=crop)


def test_images_may_be_bytes_and_numpy_arrays(small):
    obs = small.random_observation(2, seeded(0))
    pixels = (obs["image"] * 255).round().to(torch.uint8)
    expected = small.encode_observation({**obs, "image": pixels.float() / 255})
    assert torch.equal(small.encode_observation({**obs, "image": pixels}), expected)
    arrays = {"image": pixels.numpy() / 255, "agent_pos": obs["agent_pos"].numpy().astype(np.float64)}
    torch.testing.assert_close(small.encode_observation(arrays), expected, atol=1e-6, rtol=0)
    longer = {name: torch.cat([value, value], dim=1) for name, value in {**obs, "image": pixels}.items()}
    assert torch.equal(small.encode_observation(longer), expected)  # the first steps count
    unused = {"depth": torch.full((1,), math.nan)}
    assert torch.equal(small.encode_observation({**longer, **unused}), expected)


# ---- training --------------------------------------------------------------------------------------------------------


def test_loss_depends_on_the_generator_alone_and_reaches_every_weight():
    policy = make_small(p_drop_attn=0.0).train()
    batch = {**policy.random_observation(3, seeded(0)), "action": torch.rand(3, 10, 2, generator=seeded(1)) * 10 - 20}
    pixels = (batch["image"] * 255).round().to(torch.uint8)
    images_and_seeds = [(pixels, 5), (pixels / 255, 5), (pixels, 6)]
    losses = [policy.compute_loss({**batch, "image": images}, seeded(seed)) for images, seed in images_and_seeds]
    assert losses[0].item() == losses[1].item() != losses[2].item()
    losses[0].backward()
    trained = {name: p.grad for name, p in policy.named_parameters() if p.requires_grad and p.numel()}
    assert all(gradient is not None and gradient.any() for gradient in trained.values())
    with pytest.raises(ValueError, match=r"image holds values from 0 to 25\d"):
        policy.compute_loss({**batch, "image": pixels.float()}, seeded(0))


def test_crops_in_training_are_part_of_what_the_generator_decides(small):
    policy = copy.deepcopy(small)
    policy.obs_encoder.random_crops = True
    nobs = policy.normalizer.normalize(policy.random_observation(2, seeded(0)))
    features = [policy.encode(nobs, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])
    policy.obs_encoder.random_crops = False
    assert torch.equal(policy.encode(nobs, seeded(0)), policy.encode(nobs, seeded(1)))


def test_every_parameter_is_in_one_optimizer_group(small):
    groups = small.optimizer_groups(1e-3)
    assert [group["weight_decay"] for group in groups] == [1e-3, 0.0, 1e-6]
    assert {id(p) for p in groups[2]["params"]} == {id(p) for p in small.obs_encoder.parameters()}
    listed = [id(p) for group in groups for p in group["params"]]
    trained = [id(p) for p in small.parameters() if p.requires_grad and p.numel()]
    assert len(listed) == len(set(listed)) and set(trained) <= set(listed)
    assert small.optimizer_groups(1e-3, encoder_weight_decay=0.5)[2]["weight_decay"] == 0.5


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_tensor_with_two_names_is_written_once_and_read_under_both(small, tmp_path):
    repeated = repeated_names(small)
    prefix = "obs_encoder.obs_nets.image."
    assert repeated[f"{prefix}nets.0.nets.0.weight"] == f"{prefix}backbone.nets.0.weight"
    assert repeated[f"{prefix}nets.1.pos_x"] == f"{prefix}pool.pos_x" and all(
        name.startswith(prefix) for name in repeated
    )
    stored = {name: value.contiguous() for name, value in distinct_state(small).items()}
    save_file(stored, tmp_path / "x.safetensors")  # refuses tensors that share memory
    state = complete_state(small, load_file(tmp_path / "x.safetensors"))
    assert state.keys() == small.state_dict().keys()
    other = make_small()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(state)
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("half", [False, True])
def test_a_folder_loads(small, tmp_path, half):
    save_policy(tmp_path, small, config_of(SMALL, crop_shape=[36, 36]), {"weights": "ema"}, half)
    count = sum(p.numel() for p in small.parameters())
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < (2 if half else 4) * count + 50_000
    loaded = load_policy(tmp_path).policy
    obs = small.random_observation(1, seeded(0))
    a, b = (policy.predict_action(obs, seeded(0))["action"] for policy in (small, loaded))
    assert torch.equal(a, b) if not half else (a - b).abs().max() < 0.5  # of a range of 10
    assert torch.equal(loaded.obs_encoder.obs_nets["image"].pool.pos_x, small.obs_encoder.obs_nets["image"].pool.pos_x)
    assert torch.equal(loaded.normalizer["agent_pos"].scale, small.normalizer["agent_pos"].scale)


# ---- time ------------------------------------------------------------------------------------------------------------


def test_time_is_split_into_encoder_and_denoiser(small):
    def nothing(inputs, generator):
        return inputs.known

    latencies, _ = interleaved(small, {"own": small.sampler, "nothing": nothing}, batch=2, rounds=3, warmup=1)
    own, rest = latencies["own"].to_dict(), latencies["nothing"].to_dict()
    assert 0 < own["encoder_ms_p50"] < own["ms_p50"] and own["denoiser_ms_p50"] > rest["denoiser_ms_p50"]
    assert rest["denoiser_ms_p50"] < rest["encoder_ms_p50"]


def test_samplers_are_timed_on_the_same_random_images(small):
    latencies, actions = interleaved(small, {"a": small.sampler, "b": small.sampler}, batch=1, rounds=2, warmup=0)
    assert torch.equal(actions["a"], actions["b"]) and len(latencies["a"].milliseconds) == 2
