"""From a config to the objects an experiment needs: task, policy, sampler."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from bac_workbench.setup.checkpoints import find_checkpoint, notes
from bac_workbench.setup.samplers import build_sampler, name_of, resolved
from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError, choose_device
from diffusion_policy.env_runner.task import Task, task_from_config
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler


@dataclass(frozen=True)
class Experiment:
    """A task and a policy that fits it, on a device, with the chosen sampler attached.

    Attributes:
        cfg: a copy of the config in which `sampler` says what the sampler turned out to be.
        simulated: the task in its simulator, None if it has none.
        own: the checkpoint's own sampler. With it the policy is the *plain policy*, which speedups count against.
        own_chunk: actions of a chunk that the checkpoint's file says are executed (or dropped for latency).
    """

    cfg: DictConfig
    simulated: Task | None
    loaded: LoadedPolicy
    device: torch.device
    own: DiffusionSampler
    own_chunk: int

    @property
    def policy(self) -> Any:
        return self.loaded.policy

    @property
    def task(self) -> Task:
        """The task in its simulator.

        Raises:
            ConfigError: it has none.
        """
        if self.simulated is None:
            raise ConfigError(no_simulator(self.cfg))
        return self.simulated

    @property
    def base(self) -> DiffusionSampler:
        return self.policy.sampler

    @property
    def sampler(self) -> str:
        """Name of the sampler that is attached, derived from it."""
        return name_of(self.base, self.own)

    @property
    def own_sampler(self) -> str:
        """Name of the checkpoint's own sampler."""
        return name_of(self.own, self.own)

    @property
    def sampler_line(self) -> str:
        """The sampler, and where it comes from, for people."""
        if self.sampler == self.own_sampler:
            return f"sampler {self.sampler}, the checkpoint's own"
        return f"sampler {self.sampler} (the checkpoint's own is {self.own_sampler})"

    @property
    def notes(self) -> list[str]:
        """What has to be said beside every result."""
        said = notes(self.cfg, self.loaded)
        if self.policy.n_action_steps != self.own_chunk:
            said.append(
                f"{self.policy.n_action_steps} actions of a chunk are executed or dropped for latency; "
                f"the checkpoint's file says {self.own_chunk}"
            )
        return said


def has_simulator(cfg: DictConfig) -> bool:
    """Whether the task names an environment."""
    return OmegaConf.select(cfg, "task.environment._target_", default=None) is not None


def no_simulator(cfg: DictConfig) -> str:
    return (
        f"task {cfg.task.name} has no simulator (task.environment names no _target_), so nothing can be rolled out. What can be done instead:\n"
        "    python scripts/profile_blocks.py task=...     # writes schedules from observations of the task's data set\n"
        "    python scripts/benchmark.py task=...          # times methods on random observations\n"
        "and on the robot: with accelerate(load_policy(...).policy, Schedule.load(...)) as fast: fast.predict_action(obs)"
    )


def load_experiment(cfg: DictConfig, needs_simulator: bool = True, **seeds: int) -> Experiment:
    """Builds everything and checks that the pieces fit, before anything long starts.

    Raises:
        ConfigError: they do not; or the simulator, if it `needs_simulator`, is missing.
    """
    cfg = copy.deepcopy(cfg)
    device = choose_device(cfg.device)
    if cfg.threads is not None:
        if int(cfg.threads) < 1:
            raise ConfigError(f"threads={cfg.threads}: use at least 1")
        torch.set_num_threads(int(cfg.threads))
    checkpoint = find_checkpoint(cfg)  # before the simulator is asked for, which takes longer to get
    task = None
    if has_simulator(cfg):
        task = task_from_config(cfg.task, **seeds)
    elif needs_simulator:
        raise ConfigError(no_simulator(cfg))
    if task is not None and needs_simulator:
        task.check_installed()
    loaded = load_policy(checkpoint, cfg.weights, device)
    policy = loaded.policy
    if task is not None and (wrong := misfits(task, policy)):
        raise ConfigError(f"the checkpoint {checkpoint} is not a policy for task {cfg.task.name}: {'; '.join(wrong)}")
    own, own_chunk = policy.sampler, policy.n_action_steps
    if task is not None:
        execute(policy, task)
    asked = cfg.get("sampler") or {}
    policy.sampler = build_sampler(own, asked)
    OmegaConf.set_struct(cfg, False)
    with open_dict(cfg):
        cfg.sampler = resolved(policy.sampler, own, asked)
    return Experiment(cfg, task, loaded, device, own, own_chunk)


def attach(experiment: Experiment, settings: Any) -> None:
    """Gives the policy the sampler of another `sampler` section, also in the experiment's config."""
    experiment.policy.sampler = build_sampler(experiment.own, settings)
    experiment.cfg.sampler = resolved(experiment.policy.sampler, experiment.own, settings)


def misfits(task: Task, policy: Any) -> list[str]:
    """Where what the environment gives and takes differs from what the policy takes and gives."""
    environment, shapes = task.environment, task.environment.observation_shapes
    sees = {"obs": shapes} if isinstance(shapes, tuple) else dict(shapes)
    wrong = []
    for name in dict.fromkeys([*sees, *policy.obs_shapes]):
        own, seen = policy.obs_shapes.get(name), sees.get(name)
        if own is None:
            wrong.append(f"it does not look at {name}, which the environment shows")
        elif seen is None:
            wrong.append(f"it needs {name} {list(own)}, which the environment does not show")
        elif own != seen:
            wrong.append(f"it needs {name} {list(own)}, the environment shows {list(seen)}")
    for name, value in {"action_dim": environment.action_dim, "n_obs_steps": task.chunking.n_obs_steps}.items():
        if getattr(policy, name) != value:
            wrong.append(f"it has {name} {getattr(policy, name)} instead of {value}")
    return wrong


def execute(policy: Any, task: Task) -> None:
    """Lets the policy return the chunk that the task executes: `n_latency_steps` actions that are dropped and `n_action_steps`.

    Raises:
        ConfigError: the policy does not predict that many; the message gives the range.
    """
    n_action_steps, latency = task.chunking.n_action_steps, task.chunking.n_latency_steps
    wanted = n_action_steps + latency
    if wanted == policy.n_action_steps:
        return
    longest = policy.n_action_steps if policy.pred_action_steps_only else policy.horizon - policy.n_obs_steps + 1
    if policy.pred_action_steps_only:
        raise ConfigError(
            f"task.n_action_steps={n_action_steps} with task.n_latency_steps={latency} is not possible: this policy "
            f"predicts exactly the {longest} actions of a chunk; n_action_steps and n_latency_steps have to add up to that"
        )
    if latency >= longest:
        raise ConfigError(
            f"task.n_latency_steps={latency} is not possible: use 0 to {longest - 1}, as this policy predicts {longest} actions"
        )
    if n_action_steps > longest - latency:
        raise ConfigError(
            f"task.n_action_steps={n_action_steps} with task.n_latency_steps={latency} is not possible: "
            f"use 1 to {longest - latency}, as this policy predicts {longest} actions from the current one on"
        )
    policy.n_action_steps = wanted
