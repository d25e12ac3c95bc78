"""A small random policy of a task, on disk: real files, seconds instead of minutes."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from diffusion_policy.common.config import register_resolvers, to_plain
from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer

CONFIG = str(Path(__file__).resolve().parents[1] / "config")


def save_tiny_policy(
    folder: Path,
    choice: str,
    obs_limits: tuple[float, float],
    action_limits: tuple[float, float],
    n_layer: int = 2,
    steps: int | None = None,
) -> Path:
    """Writes a policy of `task=<choice>` with random weights in this project's form.

    Args:
        obs_limits, action_limits: the range that the normaliser is fitted to, of every dimension.
        steps: number of denoising steps of its own sampler; None: as the task says.
    """
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        task = to_plain(compose("eval", [f"task={choice}"]).task)
    policy_config = task["policy"]
    policy_config["model"].update(n_layer=n_layer, n_emb=32)
    if steps is not None:
        policy_config["num_inference_steps"] = steps
    config = {"task": task["name"], "policy": policy_config}
    torch.manual_seed(0)
    policy = build_policy(config)
    for parameter in policy.model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    obs, action = (torch.tensor(limits)[:, None] for limits in (obs_limits, action_limits))
    fields = {"obs": obs.expand(2, task["obs_dim"]), "action": action.expand(2, task["action_dim"])}
    policy.set_normalizer(LinearNormalizer.fit(fields))
    save_policy(folder, policy, config, {"weights": "ema", "step": "1"})
    return folder
