"""Settings of a policy and its parts: what cannot work is refused by name before anything is built."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError, ConfigError, to_plain
from diffusion_policy.common.policy_files import CONFIG_FILE, build_policy, save_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_checkpoints import image_config, lowdim_config

NAN, INF = math.nan, math.inf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    policy = build_policy(lowdim_config())
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3) * 7, "action": torch.rand(50, 2) * 500}))
    folder = tmp_path_factory.mktemp("policy")
    save_policy(folder, policy, lowdim_config(), {"weights": "ema"})
    return folder


def config_with(part: str, change: dict) -> dict:
    config = copy.deepcopy(lowdim_config())
    (config["policy"] if part == "policy" else config["policy"][part]).update(change)
    return config


REFUSED = [
    ("policy", {"num_inference_steps": "abc"}, "num_inference_steps is 'abc'; it has to be a whole number"),
    ("policy", {"num_inference_steps": 0}, "num_inference_steps is 0"),
    ("policy", {"num_inference_steps": 2.5}, "is 2.5"),
    ("policy", {"num_inference_steps": 11}, "use 1 to 10"),
    ("policy", {"horizon": 9}, "horizon is 9 and the model's is 8"),
    ("policy", {"horizon": None}, "horizon is None"),
    ("policy", {"horizon": True}, "horizon is True"),
    ("policy", {"n_obs_steps": 1}, "n_obs_steps is 1 and the model's is 2"),
    ("policy", {"n_action_steps": 0}, "n_action_steps is 0"),
    ("policy", {"obs_dim": 4}, "cond_dim is 3 instead of 4"),
    ("policy", {"action_dim": 3}, "both have to be 3"),
    ("policy", {"action_dim": [2]}, "action_dim is .2."),
    ("policy", {"obs_as_cond": "yes"}, "obs_as_cond is 'yes'; it has to be true or"),
    ("policy", {"obs_as_cond": False}, "both have to be 5"),
    ("policy", {"model": "x"}, "policy.model is a str: .* do not fit"),
    ("policy", {"model": {}}, "policy.model is a dict"),
    ("policy", {"noise_scheduler": "ddpm"}, "cannot be built|noise_scheduler is a str"),
    ("policy", {"noise_scheduler": None}, "cannot be built|is a NoneType"),
    ("policy", {"noise_scheduler": [1]}, "cannot be built|is a list"),
    ("policy", {"noise_scheduler": lowdim_config()["policy"]["model"]}, "cannot be built|noise_scheduler is a"),
    ("policy", {"model": lowdim_config()["policy"]["noise_scheduler"]}, "policy.model is a DDPMScheduler"),
    ("policy", {"eta": 1}, "unexpected keyword argument 'eta'"),
    ("policy", {"surprise": 1}, "unexpected keyword argument 'surprise'"),
    ("policy", {"generator": None}, "unexpected keyword argument 'generator'"),
    ("policy", {"return_dict": False}, "'return_dict'"),
    ("model", {"n_layer": 0}, "n_layer is 0"),
    ("model", {"n_emb": -16}, "n_emb is -16"),
    ("model", {"p_drop_emb": NAN}, "p_drop_emb is nan"),
    ("model", {"p_drop_attn": 2}, "p_drop_attn is 2; it has to be a number from 0 to 1"),
    ("model", {"n_head": 2.0}, "n_head is 2.0"),
    ("model", {"causal_attn": "no"}, "causal_attn is 'no'"),
    ("model", {"output_dim": 3}, "output_dim 3"),
    ("noise_scheduler", {"beta_start": NAN}, "beta_start is nan"),
    ("noise_scheduler", {"beta_end": INF}, "beta_end is inf"),
    ("noise_scheduler", {"beta_start": -1}, "beta_start is -1"),
    ("noise_scheduler", {"beta_end": "0.02x"}, "beta_end is '0.02x'"),
    ("noise_scheduler", {"trained_betas": [NAN] * 10}, "trained_betas is a list; it has to be"),
    ("noise_scheduler", {"trained_betas": [0.1] * 9}, "9 numbers for num_train_timesteps=10"),
    ("noise_scheduler", {"trained_betas": "x"}, "trained_betas is 'x'"),
    ("noise_scheduler", {"trained_betas": []}, "trained_betas is .."),
    ("noise_scheduler", {"num_train_timesteps": 0}, "num_train_timesteps is 0"),
    ("noise_scheduler", {"clip_sample": 2}, "clip_sample is 2"),
    ("noise_scheduler", {"num_train_timesteps": 5}, "num_inference_steps=10 is not possible: use 1 to 5"),
    ("noise_scheduler", {"prediction_type": "noise"}, "prediction_type is 'noise'; it has to be one of 'epsilon'"),
    ("noise_scheduler", {"timestep_spacing": "odd"}, "timestep_spacing is 'odd'"),
    ("noise_scheduler", {"steps_offset": -1}, "steps_offset"),
    ("noise_scheduler", {"steps_offset": 9, "timestep_spacing": "leading"}, "cannot take 10 steps"),
    ("noise_scheduler", {"variance_type": {"a": 1}}, "variance_type is a dict"),
    ("noise_scheduler", {"variance_type": "odd"}, "DDPMScheduler"),
    ("noise_scheduler", {"beta_schedule": ["linear"]}, "beta_schedule"),
    ("noise_scheduler", {"clip_sample_range": -1}, "clip_sample_range"),
]


@pytest.mark.parametrize(("part", "change", "message"), REFUSED)
def test_what_cannot_work_is_refused_when_loading_and_when_building(folder, part, change, message):
    config = config_with(part, change)
    with pytest.raises(ConfigError, match=message):
        build_policy(config)
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(config))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(folder)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("policy", ["x", [1], 3, None, {"_target_": 5}])
@pytest.mark.parametrize("steps", [None, 5])
def test_policies_that_are_no_section(folder, policy, steps):
    (folder / CONFIG_FILE).write_text(json.dumps({"task": None, "policy": policy}))
    with pytest.raises(CheckpointError):
        load_policy(folder, num_inference_steps=steps)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("noise_scheduler", {"trained_betas": [0.01 * (i + 1) for i in range(10)]}),
        ("policy", {"num_inference_steps": None}),
        ("noise_scheduler", {"timestep_spacing": "trailing", "clip_sample_range": 2.0}),
        ("noise_scheduler", {"prediction_type": "v_prediction"}),
        ("noise_scheduler", {"_target_": "diffusers.DDIMScheduler", "set_alpha_to_one": False, "steps_offset": 0}),
        ("noise_scheduler", {"thresholding": True, "sample_max_value": 1.5}),
        ("model", {"p_drop_emb": 1, "causal_attn": 1}),
        ("noise_scheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ],
)
def test_unusual_settings_that_work_go_on_working(folder, part, change):
    config = config_with(part, change)
    if part == "noise_scheduler" and "_target_" in change:
        del config["policy"]["noise_scheduler"]["variance_type"]  # DDPM's own
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(config))
    policy = load_policy(folder).policy
    action = policy.predict_action({"obs": torch.zeros(1, 2, 3)}, torch.Generator().manual_seed(0))["action"]
    assert action.shape == (1, 5, 2) and torch.isfinite(action).all()


def test_the_file_says_which_scheduler_and_how_many_steps(folder):
    config = config_with("policy", {"num_inference_steps": 4, "eta": 0.5})
    config["policy"]["noise_scheduler"] = {"_target_": "diffusers.DDIMScheduler", "num_train_timesteps": 20}
    (folder / CONFIG_FILE).write_text(OmegaConf.to_yaml(config))
    loaded = load_policy(folder)
    assert type(loaded.policy.noise_scheduler).__name__ == "DDIMScheduler"
    assert loaded.policy.sampler.num_inference_steps == 4 and loaded.config == config
    with pytest.raises(CheckpointError, match="use 1 to 20"):
        load_policy(folder, num_inference_steps=21)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_shape": [36]}, "crop_shape"),
        ({"crop_shape": [10**9, 10**9]}, "exceeds the images"),
        ({"crop_shape": [NAN, 2]}, "crop_shape"),
        ({"n_layer": 10**6}, "n_layer is 1000000"),
        ({"shape_meta": {"obs": {"i": {"shape": [3, 10**6, 4], "type": "rgb"}}}}, "shape_meta"),
        ({"shape_meta": 5}, "shape_meta"),
        ({"shape_meta": {"obs": {"i": {"shape": [10**9]}}, "action": {"shape": [2]}}}, "at most 65536"),
        (
            {"shape_meta": {"obs": {f"o{i}": {"shape": [1]} for i in range(1000)}, "action": {"shape": [2]}}},
            "1000 observations",
        ),
        ({"eval_fixed_crop": "x"}, "eval_fixed_crop is 'x'"),
    ],
)
def test_image_policies(change, message):
    meta = {"obs": {"image": {"shape": [3, 40, 40], "type": "rgb"}, "state": {"shape": [3]}}, "action": {"shape": [2]}}
    config = {"policy": to_plain(OmegaConf.create(image_config("x", meta, [36, 36])))["policy"]}
    config["policy"].update(change)
    with pytest.raises(ConfigError, match=message):
        build_policy(config, "meta")
