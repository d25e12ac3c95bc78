"""Checkpoints as the original project writes them, with its names and its config, of small random policies."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import OmegaConf

from diffusion_policy.common.config import register_resolvers

POLICY = "diffusion_policy.policy.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy"

# As in the original project: interpolations, `eval` strings and resolvers that only its own scripts know.
LOWDIM_CONFIG = {
    "name": "train_diffusion_transformer_lowdim",
    "_target_": "diffusion_policy.workspace.train_diffusion_transformer_lowdim_workspace."
    "TrainDiffusionTransformerLowdimWorkspace",
    "obs_dim": "${task.obs_dim}",
    "action_dim": "${task.action_dim}",
    "task_name": "${task.name}",
    "horizon": 8,
    "n_obs_steps": 2,
    "n_action_steps": 4,
    "n_latency_steps": 1,
    "obs_as_cond": True,
    "policy": {
        "_target_": POLICY,
        "model": {
            "_target_": "diffusion_policy.model.diffusion.transformer_for_diffusion.TransformerForDiffusion",
            "input_dim": "${eval:'${action_dim} if ${obs_as_cond} else ${obs_dim} + ${action_dim}'}",
            "output_dim": "${policy.model.input_dim}",
            "horizon": "${horizon}",
            "n_obs_steps": "${n_obs_steps}",
            "cond_dim": "${eval:'${obs_dim} if ${obs_as_cond} else 0'}",
            "n_layer": 2,
            "n_head": 2,
            "n_emb": 16,
            "p_drop_emb": 0.0,
            "p_drop_attn": 0.01,
            "causal_attn": True,
            "time_as_cond": True,
            "obs_as_cond": "${obs_as_cond}",
            "n_cond_layers": 0,
        },
        "noise_scheduler": {
            "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
            "num_train_timesteps": 10,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
        "horizon": "${horizon}",
        "obs_dim": "${obs_dim}",
        "action_dim": "${action_dim}",
        "n_action_steps": "${eval:'${n_action_steps}+${n_latency_steps}'}",
        "n_obs_steps": "${n_obs_steps}",
        "num_inference_steps": 10,
        "obs_as_cond": "${obs_as_cond}",
        "pred_action_steps_only": False,
    },
    "task": {
        "name": "pusht_lowdim",
        "obs_dim": 3,
        "action_dim": 2,
        "dataset": {"pad_after": "${eval:'${n_action_steps}-1'}"},
    },
    "multi_run": {"run_dir": "data/outputs/${now:%Y.%m.%d}/${now:%H.%M.%S}_${name}"},
}


def image_config(task: str, shape_meta: dict, crop_shape: list[int], steps: int = 10, **changes: Any) -> dict:
    """The config of the original image policy, with a small Transformer and `changes` to the policy."""
    scheduler = {
        "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
        "num_train_timesteps": steps,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "squaredcos_cap_v2",
        "variance_type": "fixed_small",
        "clip_sample": True,
        "prediction_type": "epsilon",
    }
    policy = {
        "_target_": "diffusion_policy.policy.diffusion_transformer_hybrid_image_policy."
        "DiffusionTransformerHybridImagePolicy",
        "shape_meta": "${shape_meta}",
        "noise_scheduler": scheduler,
        "horizon": "${horizon}",
        "n_action_steps": "${eval:'${n_action_steps}+${n_latency_steps}'}",
        "n_obs_steps": "${n_obs_steps}",
        "num_inference_steps": steps,
        "crop_shape": crop_shape,
        "obs_encoder_group_norm": True,
        "eval_fixed_crop": True,
        "n_layer": 2,
        "n_cond_layers": 0,
        "n_head": 2,
        "n_emb": 16,
        "p_drop_emb": 0.0,
        "p_drop_attn": 0.3,
        "causal_attn": True,
        "time_as_cond": True,
        "obs_as_cond": "${obs_as_cond}",
    }
    return {
        "name": "train_diffusion_transformer_hybrid",
        "_target_": "diffusion_policy.workspace.train_diffusion_transformer_hybrid_workspace."
        "TrainDiffusionTransformerHybridWorkspace",
        "task_name": "${task.name}",
        "shape_meta": "${task.shape_meta}",
        "exp_name": "default",
        "horizon": 10,
        "n_obs_steps": 2,
        "n_action_steps": 8,
        "n_latency_steps": 0,
        "dataset_obs_steps": "${n_obs_steps}",
        "obs_as_cond": True,
        "policy": {**policy, **changes},
        "task": {
            "name": task,
            "shape_meta": shape_meta,
            "dataset": {"pad_before": "${eval:'${n_obs_steps}-1+${n_latency_steps}'}"},
        },
    }


def lowdim_config() -> dict:
    """`LOWDIM_CONFIG` as it is resolved."""
    register_resolvers()
    return {
        "task": "pusht_lowdim",
        "policy": OmegaConf.to_container(OmegaConf.create(LOWDIM_CONFIG).policy, resolve=True),
    }


def lowdim_payload(policy) -> dict:
    """The raw weights are the EMA weights shifted by 0.01."""
    ema = policy.state_dict()
    raw = {name: value + 0.01 if name.startswith("model.") else value for name, value in ema.items()}
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}
    optimizer = {"state": state, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return {
        "cfg": OmegaConf.create(LOWDIM_CONFIG),
        "state_dicts": {"model": raw, "ema_model": ema, "optimizer": optimizer},
        "pickles": {
            "global_step": pickle.dumps(1234),
            "epoch": pickle.dumps(56),
            "_output_dir": pickle.dumps("data/outputs/x"),
        },
    }


def image_payload(policy, config: dict) -> dict:
    """The raw weights are the EMA weights plus 0.01; as in the original, two names share one stored tensor."""
    ema = policy.state_dict()
    raw: dict[int, torch.Tensor] = {}

    def shifted(value: torch.Tensor) -> torch.Tensor:
        return raw.setdefault(value.data_ptr(), value + 0.01) if value.numel() else value

    model = {
        name: shifted(value) if name.startswith(("model.", "obs_encoder.")) else value for name, value in ema.items()
    }
    return {
        "cfg": OmegaConf.create(config),
        "state_dicts": {"model": model, "ema_model": dict(ema), "optimizer": {}},
        "pickles": {"global_step": pickle.dumps(77), "epoch": pickle.dumps(5)},
    }


def saved(path: Path, payload: object, pickle_module: ModuleType = pickle) -> Path:
    torch.save(payload, path, pickle_module=pickle_module)
    return path
