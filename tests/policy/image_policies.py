"""Policies on images with a tiny Transformer, and what they act on."""

from __future__ import annotations

import copy

import torch

from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from diffusion_policy.policy.diffusion_transformer_hybrid_image_policy import DiffusionTransformerHybridImagePolicy

POLICY = f"{DiffusionTransformerHybridImagePolicy.__module__}.{DiffusionTransformerHybridImagePolicy.__qualname__}"
ARM = {"robot0_eef_pos": {"shape": [3]}, "robot0_eef_quat": {"shape": [4]}, "robot0_gripper_qpos": {"shape": [2]}}


def camera(size: int) -> dict:
    return {"shape": [3, size, size], "type": "rgb"}


CAN = {"obs": {"agentview_image": camera(84), "robot0_eye_in_hand_image": camera(84), **ARM}, "action": {"shape": [10]}}
TRANSPORT = {
    "obs": {
        "shouldercamera0_image": camera(84),
        "robot0_eye_in_hand_image": camera(84),
        **ARM,
        "shouldercamera1_image": camera(84),
        "robot1_eye_in_hand_image": camera(84),
        **{name.replace("robot0", "robot1"): entry for name, entry in ARM.items()},
    },
    "action": {"shape": [20]},
}
PUSHT = {"obs": {"image": camera(96), "agent_pos": {"shape": [2], "type": "low_dim"}}, "action": {"shape": [2]}}
SMALL = {"obs": {"image": camera(40), "agent_pos": {"shape": [2]}}, "action": {"shape": [2]}}


def config_of(shape_meta, **changes) -> dict:
    """The original config of the class with a tiny Transformer, and `changes` to it."""
    scheduler = {"_target_": "diffusers.DDPMScheduler", "num_train_timesteps": 10, "beta_schedule": "squaredcos_cap_v2"}
    policy = {
        "_target_": POLICY,
        "shape_meta": shape_meta,
        "noise_scheduler": scheduler,
        "horizon": 10,
        "n_action_steps": 8,
        "n_obs_steps": 2,
        "num_inference_steps": 4,
        "crop_shape": [76, 76],
        "obs_encoder_group_norm": True,
        "eval_fixed_crop": True,
        "n_layer": 2,
        "n_head": 2,
        "n_emb": 16,
    }
    return {"task": None, "policy": copy.deepcopy({**policy, **changes})}


def make_policy(shape_meta, **changes) -> DiffusionTransformerHybridImagePolicy:
    torch.manual_seed(0)
    policy = build_policy(config_of(shape_meta, **changes))
    fields = {"action": FieldNormalizer.fit(torch.rand(50, policy.action_dim) * 10 - 20)}
    for name, shape in policy.obs_shapes.items():
        fields[name] = FieldNormalizer.image() if len(shape) == 3 else FieldNormalizer.fit(100 * torch.rand(20, *shape))
    policy.set_normalizer(LinearNormalizer(fields))
    return policy


def make_small(**changes) -> DiffusionTransformerHybridImagePolicy:
    return make_policy(SMALL, **{"crop_shape": [36, 36], **changes})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
