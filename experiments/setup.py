"""From a config to the objects an experiment needs: task, policy, sampler."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hydra.utils import instantiate
from omegaconf import DictConfig

from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError, choose_device
from diffusion_policy.env_runner.task import TaskAdapter
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler

SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpmpp": DPMSolverMultistepScheduler}


@dataclass(frozen=True)
class Experiment:
    """A task and a policy that fits it, on a device, with the chosen sampler attached."""

    cfg: DictConfig
    task: TaskAdapter
    loaded: LoadedPolicy
    device: torch.device

    @property
    def policy(self) -> Any:
        return self.loaded.policy

    @property
    def base(self) -> DiffusionSampler:
        return self.policy.sampler

    @property
    def sampler(self) -> str:
        return self.cfg.sampler.name


def base_sampler(policy: Any, kind: str, steps: int) -> DiffusionSampler:
    """A denoising loop for a trained policy with another solver or number of steps; the noise schedule stays as trained."""
    if kind not in SCHEDULERS:
        raise ConfigError(f"sampler.type={kind} is unknown: use {', '.join(SCHEDULERS)}")
    trained = policy.noise_scheduler.config
    if not 1 <= steps <= trained.num_train_timesteps:
        raise ConfigError(f"sampler.steps={steps} is not possible: use 1 to {trained.num_train_timesteps}, the number it was trained with")
    kwargs = policy.sampler.step_kwargs if isinstance(policy.sampler, DiffusionSampler) else {}
    return DiffusionSampler(policy.model, SCHEDULERS[kind].from_config(trained), steps, kwargs)


def make_task(cfg: DictConfig, **overrides: Any) -> TaskAdapter:
    task = instantiate(cfg.task.adapter, **overrides)
    task.check_installed()
    return task


def load_experiment(cfg: DictConfig, **task_overrides: Any) -> Experiment:
    """Builds everything and checks that the pieces fit, before anything long starts."""
    device = choose_device(cfg.device)
    if cfg.threads is not None:
        if int(cfg.threads) < 1:
            raise ConfigError(f"threads={cfg.threads}: use at least 1")
        torch.set_num_threads(int(cfg.threads))
    task = make_task(cfg, **task_overrides)
    loaded = load_policy(Path(cfg.checkpoint), cfg.weights, device)
    policy = loaded.policy
    obs_shapes = {"obs": (task.obs_dim,)} if task.obs_shapes is None else dict(task.obs_shapes)
    expected = {"obs_shapes": obs_shapes, "action_dim": task.action_dim, "n_obs_steps": task.n_obs_steps,
                "n_action_steps": task.n_action_steps + task.n_latency_steps}
    wrong = [f"{name} {getattr(policy, name)} instead of {value}" for name, value in expected.items() if getattr(policy, name) != value]
    if wrong:
        raise ConfigError(f"the checkpoint {cfg.checkpoint} is not a policy for task {cfg.task.name}: it has {', '.join(wrong)}")
    policy.sampler = base_sampler(policy, cfg.sampler.type, int(cfg.sampler.steps))
    return Experiment(cfg, task, loaded, device)
