"""A small policy of the stand-in with random weights: 2 action and 3 observation numbers, horizon 6."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDPMScheduler

TRAIN = {"num_train_timesteps": 100, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2"}


@torch.no_grad()
def make(model_class: Any, policy_class: Any, normalizer_class: Any, steps: int = 10, **changes: Any) -> Any:
    """The policy of these three classes.

    `changes`: obs_as_cond, pred_action_steps_only, n_cond_layers; what else there is are options of `scheduler.step`.
    """
    torch.manual_seed(0)
    as_cond, chunk_only = changes.pop("obs_as_cond", True), changes.pop("pred_action_steps_only", False)
    width, horizon = (2, 4 if chunk_only else 6) if as_cond else (5, 6)
    layers = changes.pop("n_cond_layers", 0)
    model = model_class(width, width, horizon, 2, 3 if as_cond else 0, n_cond_layers=layers)
    for name, parameter in model.named_parameters():
        scale = 1.0 if "pos_emb" in name else 0.2 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
        parameter.add_(scale * torch.randn_like(parameter))
    policy = policy_class(
        model, DDPMScheduler(**TRAIN), 6, 3, 2, 4, 2, steps, as_cond, pred_action_steps_only=chunk_only, **changes
    )
    limits = {"obs": (-torch.ones(3), torch.ones(3)), "action": (torch.zeros(2), 512 * torch.ones(2))}
    policy.set_normalizer(normalizer_class(limits))
    return policy.eval()


def observation(batch: int = 1) -> dict[str, torch.Tensor]:
    return {"obs": torch.rand(batch, 2, 3, generator=torch.Generator().manual_seed(5))}
