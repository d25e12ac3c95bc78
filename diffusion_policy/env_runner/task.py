"""A simulated task as the rollout loop sees it: an environment, how a policy acts in it, and the seeds of its episodes.

The three parts are the three sections that a file of config/task/ gives them: `environment`, the chunking at its top
(`n_obs_steps`, `n_action_steps`, `n_latency_steps`) and `seeds`.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import check_backend, choose_backend
from diffusion_policy.env_runner.clock import Pace
from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.multistep import MultiStep, max_reward
from diffusion_policy.env_runner.observation import Observation
from diffusion_policy.env_runner.realtime import RealTimeStep
from diffusion_policy.env_runner.vector import VectorEnv, check_workers


@dataclass(frozen=True)
class Chunking:
    """How a policy acts: it sees `n_obs_steps` observations and executes `n_action_steps` actions until it is asked
    again.

    The first `n_latency_steps` actions of a chunk are dropped: they are for the time in which the policy computes.
    """

    n_obs_steps: int = 2
    n_action_steps: int = 8
    n_latency_steps: int = 0

    def __post_init__(self) -> None:
        _require_whole(self, n_obs_steps=1, n_action_steps=1, n_latency_steps=0)


@dataclass(frozen=True)
class Seeds:
    """The episodes of an evaluation, each one a seed of the environment.

    Attributes:
        n_test, test_start_seed: the benchmark's own episodes (split "test").
        n_train, train_start_seed: episodes that start where demonstrations did (split "train").
    """

    n_test: int = 50
    test_start_seed: int = 100_000
    n_train: int = 0
    train_start_seed: int = 0

    def __post_init__(self) -> None:
        _require_whole(self, n_test=0, test_start_seed=0, n_train=0, train_start_seed=0)

    @property
    def train(self) -> range:
        return range(self.train_start_seed, self.train_start_seed + self.n_train)

    @property
    def test(self) -> range:
        return range(self.test_start_seed, self.test_start_seed + self.n_test)

    def episodes(self) -> list[Episode]:
        """All episodes: first the train, then the test seeds."""
        seeds = [("train", seed) for seed in self.train] + [("test", seed) for seed in self.test]
        return [Episode(index, seed, split) for index, (split, seed) in enumerate(seeds)]


@dataclass(frozen=True)
class Requirements:
    """The optional packages that an environment imports, and the extra of this project that installs them, if one
    does."""

    packages: tuple[str, ...] = ()
    extra: str | None = None

    def check(self, task: str) -> None:
        """Raises `MissingExtraError`, naming the `task`, if a package is not installed; imports none of them."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            install = f"'bac-workbench[{self.extra}]'" if self.extra else " ".join(missing)
            raise MissingExtraError(f"task {task!r} needs {', '.join(missing)}. Install with: pip install {install}")


@dataclass(frozen=True)
class Environment:
    """An environment and what it shows, takes and measures. Every benchmark is a function that returns one.

    Attributes:
        make: makes the environment; picklable, called in the workers. See `MultiStep` for what it must offer.
        action_dim: Da.
        max_steps: steps after which an episode ends.
        obs_dim: Do of what the policy sees, for a low-dimensional task.
        obs_shapes: shapes by name of what the policy sees, for a task with images. Give either this or `obs_dim`.
        policy_observation: what the policy sees of an observation; None: all of it.
        score: of an episode, from its rewards [T].
        requirements: the packages that it imports.
        recorded_starts: wraps the environment so that the seeds in a range start where demonstrations did, which the
            train seeds then do. None: they start as the environment starts them.
        starts_are_recorded: train seeds mean nothing without `recorded_starts`.
        one_env_per_process: its simulator cannot draw for two environments in one process.
    """

    make: Callable[[], gymnasium.Env]
    action_dim: int
    max_steps: int
    obs_dim: int | None = None
    obs_shapes: Mapping[str, tuple[int, ...]] | None = None
    policy_observation: Callable[[Observation], Observation] | None = None
    score: Callable[[np.ndarray], float] = max_reward
    requirements: Requirements = Requirements()
    recorded_starts: Callable[[gymnasium.Env, range], gymnasium.Env] | None = None
    starts_are_recorded: bool = False
    one_env_per_process: bool = False

    def __post_init__(self) -> None:
        if (self.obs_dim is None) == (self.obs_shapes is None):
            raise ValueError(
                "an environment shows one vector or several arrays by name: give either obs_dim or obs_shapes"
            )
        _require_whole(self, action_dim=1, max_steps=1)

    @property
    def observation_shapes(self) -> Mapping[str, tuple[int, ...]] | tuple[int, ...]:
        """Of what the policy sees, without the observation steps: one shape, or shapes by name."""
        return (self.obs_dim,) if self.obs_shapes is None else self.obs_shapes


@dataclass(frozen=True)
class Task:
    """An environment in which a policy acts in chunks, from given seeds.

    Attributes:
        pace: how the world goes on while the policy thinks (see `clock`); None: it waits.
    """

    name: str
    environment: Environment
    chunking: Chunking = field(default_factory=Chunking)
    seeds: Seeds = field(default_factory=Seeds)
    pace: Pace | None = None

    def __post_init__(self) -> None:
        environment = self.environment
        if self.seeds.n_train and environment.starts_are_recorded and environment.recorded_starts is None:
            from diffusion_policy.common.config import ConfigError  # here: it brings torch, which workers do not need

            raise ConfigError(
                f"the {self.seeds.n_train} train episodes of {self.name!r} start where demonstrations did: name the "
                "file with them (task.environment.initial_states=data/robomimic/...hdf5), or evaluate without "
                "(eval.n_train=0)"
            )

    def episodes(self) -> list[Episode]:
        return self.seeds.episodes()

    def make_slot(self) -> MultiStep:
        """One environment in action chunks: what a slot of the vector environment runs."""
        environment, chunking = self.environment, self.chunking
        env = environment.make()
        if environment.recorded_starts is not None:
            env = environment.recorded_starts(env, self.seeds.train)
        options: dict[str, Any] = {
            "policy_observation": environment.policy_observation,
            "score": environment.score,
            "obs_shapes": environment.observation_shapes,
            "action_dim": environment.action_dim,
        }
        if self.pace is not None:
            return RealTimeStep(env, chunking.n_obs_steps, environment.max_steps, self.pace, **options)
        return MultiStep(
            env,
            chunking.n_obs_steps,
            chunking.n_action_steps,
            environment.max_steps,
            n_latency_steps=chunking.n_latency_steps,
            **options,
        )

    def vector_env(self, n_envs: int, n_workers: int | None = None) -> VectorEnv:
        """A `VectorEnv` of this task.

        Args:
            n_workers: processes; None: as the environment needs them, usually one per core; 0: in this process.

        Raises:
            MissingExtraError: a package of the environment is not installed.
            ValueError: the environment needs a process for each of `n_envs` and has fewer.
        """
        self.check_installed()
        self.check_workers(n_envs, n_workers)
        if self.environment.one_env_per_process and n_workers is None:
            n_workers = n_envs
        return VectorEnv(self.make_slot, n_envs, n_workers)

    def check_workers(self, n_envs: int, n_workers: int | None = None) -> None:
        """Raises ValueError for numbers with which `vector_env` cannot work. Starts nothing."""
        check_workers(n_envs, n_workers)
        if self.environment.one_env_per_process and n_workers is not None and max(n_workers, 1) < n_envs:
            raise InputError(
                f"task {self.name!r} draws images, which takes a process per environment: "
                f"use at least n_workers={n_envs} for n_envs={n_envs}, or n_workers=null"
            )

    def check_installed(self) -> None:
        """Raises `MissingExtraError` if a package of the environment is not installed, `RenderingError` if the
        variables of the process ask for an OpenGL that is not there; imports none of the packages."""
        self.environment.requirements.check(self.name)
        if "mujoco" in self.environment.requirements.packages:
            choose_backend()
            check_backend(draws=self.environment.obs_shapes is not None)


def task_from_config(section: Mapping[str, Any], **seeds: int) -> Task:
    """The task that the section `task` of a config describes, whether or not its simulator is installed.

    Args:
        seeds: what is not in the section, such as n_test=50, or another value for it; see `Seeds`.

    Raises:
        ConfigError: its environment does not know a setting, or cannot be with it.
    """
    # Here and not above: workers import this module, and need none of its imports.
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from diffusion_policy.common.config import ConfigError

    target = section["environment"]["_target_"]
    try:
        pkgutil.resolve_name(target)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"task.environment._target_={target} cannot be imported ({error}): correct it, or put the folder of its "
            "module on PYTHONPATH"
        ) from error
    try:
        environment = instantiate(section["environment"])
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):  # a setting is wrong: nobody needs to see that hydra was asked
            raise error.__cause__ from None
        raise
    chunking = Chunking(*(section[name] for name in ("n_obs_steps", "n_action_steps", "n_latency_steps")))
    return Task(section["name"], environment, chunking, Seeds(**{**section["seeds"], **seeds}))


def _require_whole(owner: object, **least: int) -> None:
    """Raises ValueError unless these attributes are whole numbers of at least so much."""
    for name, smallest in least.items():
        value = getattr(owner, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise InputError(f"{name}={value} is not possible: use a whole number of at least {smallest}")
