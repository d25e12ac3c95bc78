"""From a config to the objects an experiment needs: task, policy, sampler."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hydra.utils import instantiate
from omegaconf import DictConfig

from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError, choose_device
from diffusion_policy.env_runner.task import TaskAdapter
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from experiments.checkpoints import find_checkpoint, notes

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

    @property
    def notes(self) -> list[str]:
        """What has to be said beside every result."""
        return notes(self.cfg, self.loaded)


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
    checkpoint = find_checkpoint(cfg)  # before the simulator is asked for, which takes longer to get
    task = make_task(cfg, **task_overrides)
    loaded = load_policy(checkpoint, cfg.weights, device)
    policy = loaded.policy
    if wrong := misfits(task, policy):
        raise ConfigError(f"the checkpoint {checkpoint} is not a policy for task {cfg.task.name}: {'; '.join(wrong)}")
    policy.sampler = base_sampler(policy, cfg.sampler.type, int(cfg.sampler.steps))
    return Experiment(cfg, task, loaded, device)


def misfits(task: TaskAdapter, policy: Any) -> list[str]:
    """Where what the environment gives and takes differs from what the policy takes and gives."""
    sees = {"obs": (task.obs_dim,)} if task.obs_shapes is None else dict(task.obs_shapes)
    wrong = []
    for name in dict.fromkeys([*sees, *policy.obs_shapes]):
        own, environment = policy.obs_shapes.get(name), sees.get(name)
        if own is None:
            wrong.append(f"it does not look at {name}, which the environment shows")
        elif environment is None:
            wrong.append(f"it needs {name} {list(own)}, which the environment does not show")
        elif own != environment:
            wrong.append(f"it needs {name} {list(own)}, the environment shows {list(environment)}")
    for name, value in {"action_dim": task.action_dim, "n_obs_steps": task.n_obs_steps,
                        "n_action_steps": task.n_action_steps + task.n_latency_steps}.items():
        if getattr(policy, name) != value:
            wrong.append(f"it has {name} {getattr(policy, name)} instead of {value}")
    return wrong
