"""What an evaluation needs to know of a task. Every benchmark is one function that returns a `TaskAdapter`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gymnasium
import numpy as np

from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import check_backend, choose_backend
from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.multistep import MultiStep, max_reward
from diffusion_policy.env_runner.observation import Observation
from diffusion_policy.env_runner.vector import VectorEnv, check_workers


@dataclass(frozen=True)
class TaskAdapter:
    """A simulated task, as the rollout loop sees it.

    Attributes:
        make_env: makes the environment; picklable, called in the workers. See `MultiStep` for what it must offer.
        action_dim: Da.
        obs_dim: Do of what the policy sees, for a low-dimensional task.
        obs_shapes: shapes by name of what the policy sees, for a task with images. Give either this or `obs_dim`.
        n_obs_steps, n_action_steps, n_latency_steps, max_steps, policy_observation, score: see `MultiStep`.
        n_train, train_start_seed: episodes that start where demonstrations did (split "train").
        n_test, test_start_seed: the benchmark's own episodes (split "test").
        extra, packages: the optional packages that the task imports, and the extra of this project that installs them.
        one_env_per_process: its simulator cannot draw for two environments in one process.
    """

    name: str
    make_env: Callable[[], gymnasium.Env]
    action_dim: int
    n_obs_steps: int
    n_action_steps: int
    max_steps: int
    n_train: int
    train_start_seed: int
    n_test: int
    test_start_seed: int
    extra: str
    packages: tuple[str, ...]
    obs_dim: int | None = None
    obs_shapes: Mapping[str, tuple[int, ...]] | None = None
    n_latency_steps: int = 0
    policy_observation: Callable[[Observation], Observation] | None = None
    score: Callable[[np.ndarray], float] = max_reward
    one_env_per_process: bool = False

    def __post_init__(self) -> None:
        if (self.obs_dim is None) == (self.obs_shapes is None):
            raise ValueError(f"task {self.name!r}: give either obs_dim or obs_shapes")
        for field, least in (
            ("action_dim", 1),
            ("n_obs_steps", 1),
            ("n_action_steps", 1),
            ("max_steps", 1),
            ("n_latency_steps", 0),
            ("n_train", 0),
            ("n_test", 0),
            ("train_start_seed", 0),
            ("test_start_seed", 0),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"task {self.name!r}: {field}={value} is not possible, use a whole number of at least {least}"
                )

    def episodes(self) -> list[Episode]:
        """All episodes of an evaluation: first the train, then the test seeds."""
        seeds = [("train", self.train_start_seed + i) for i in range(self.n_train)]
        seeds += [("test", self.test_start_seed + i) for i in range(self.n_test)]
        return [Episode(index, seed, split) for index, (split, seed) in enumerate(seeds)]

    def make_slot(self) -> MultiStep:
        """One environment in action chunks: what a slot of the vector environment runs."""
        return MultiStep(
            self.make_env(),
            self.n_obs_steps,
            self.n_action_steps,
            self.max_steps,
            n_latency_steps=self.n_latency_steps,
            policy_observation=self.policy_observation,
            score=self.score,
            obs_shapes=(self.obs_dim,) if self.obs_shapes is None else self.obs_shapes,
            action_dim=self.action_dim,
        )

    def vector_env(self, n_envs: int, n_workers: int | None = None) -> VectorEnv:
        """A `VectorEnv` of this task.

        Args:
            n_workers: processes; None: as the task needs them, usually one per core; 0: in this process.

        Raises:
            MissingExtraError: a package of the task is not installed.
            ValueError: the task needs a process per environment and has fewer.
        """
        self.check_installed()
        self.check_workers(n_envs, n_workers)
        if self.one_env_per_process and n_workers is None:
            n_workers = n_envs
        return VectorEnv(self.make_slot, n_envs, n_workers)

    def check_workers(self, n_envs: int, n_workers: int | None = None) -> None:
        """Raises ValueError for numbers with which `vector_env` cannot work. Starts nothing."""
        check_workers(n_envs, n_workers)
        if self.one_env_per_process and n_workers is not None and max(n_workers, 1) < n_envs:
            raise ValueError(
                f"task {self.name!r} draws images, which takes a process per environment: "
                f"use at least n_workers={n_envs} for n_envs={n_envs}, or n_workers=null"
            )

    def check_installed(self) -> None:
        """Raise `MissingExtraError` if a package of the task is not installed, `RenderingError` if the environment's variables ask
        for an OpenGL that is not there; imports none of the packages."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise MissingExtraError(
                f"task {self.name!r} needs {', '.join(missing)}. Install with: pip install -e .[{self.extra}]"
            )
        if "mujoco" in self.packages:
            choose_backend()
            check_backend(draws=self.obs_shapes is not None)
