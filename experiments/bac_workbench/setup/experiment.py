"""From settings to the objects an experiment needs: task, policy, sampler, cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bac.denoiser import model_blocks
from bac.horizon import Tokens, choose_tokens
from bac.loop import DenoisingLoop
from bac_workbench.settings.cache import Cache
from bac_workbench.settings.evaluation import PolicySettings
from bac_workbench.settings.tuned import Certified, Tuned
from bac_workbench.setup.checkpoints import find_checkpoint, notes
from bac_workbench.setup.clock import clock_note, with_entered_clock
from bac_workbench.setup.recordings import Recordings, open_recordings
from bac_workbench.setup.samplers import build_sampler, name_of, resolved
from bac_workbench.setup.task import execute, has_simulator, misfits, no_simulator
from bac_workbench.setup.trainings import Training
from bac_workbench.setup.tuned import followed
from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError, choose_device
from diffusion_policy.env_runner.clock import Clock
from diffusion_policy.env_runner.task import Task, task_from_config
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler


@dataclass(frozen=True)
class Experiment:
    """A task and a policy that fits it, on a device, with a sampler and a cache.

    It is immutable: `with_sampler` and `with_cache` give another experiment with the same loaded policy. The policy
    keeps the checkpoint's own sampler, but for the time that it is `attached` or accelerated.

    Attributes:
        settings: those of the command.
        simulated: the task in its simulator, None if it has none.
        own_sampler: the checkpoint's own. With it the policy is the *plain policy*, which speedups count against.
        own_chunk: actions of a chunk that the checkpoint's file says are executed (or dropped for latency).
        sampler: the denoising loop of this experiment.
        sampler_settings: the `sampler` section as it turned out: name, type, steps and the options that are set.
        cache: how block outputs are reused; None for a command that names no cache of its own.
        clock: how long a chunk takes where the world goes on meanwhile; None: it waits.
        recordings: recorded observations that the settings name; None: they name none.
    """

    settings: PolicySettings
    simulated: Task | None
    loaded: LoadedPolicy
    device: torch.device
    own_sampler: DiffusionSampler
    own_chunk: int
    sampler: DenoisingLoop
    sampler_settings: Mapping[str, Any]
    cache: Cache | None = None
    clock: Clock | None = None
    recordings: Recordings | None = None

    def with_sampler(self, options: Mapping[str, Any]) -> Experiment:
        """With the sampler of another `sampler` section; empty: the checkpoint's own.

        Raises:
            ConfigError: something in it is impossible, or would have no effect.
        """
        sampler = build_sampler(self.own_sampler, options)
        return dataclasses.replace(self, sampler=sampler, sampler_settings=resolved(sampler, self.own_sampler, options))

    def with_cache(self, cache: Cache | None) -> Experiment:
        """With another cache; `tuned` brings its sampler along.

        Raises:
            ConfigError, TunedError: it is `tuned`, and there is no certificate of this policy.
        """
        return followed(self) if isinstance(cache, Tuned) else dataclasses.replace(self, cache=cache)

    @contextmanager
    def attached(self) -> Iterator[Any]:
        """The policy with this experiment's sampler; on leaving it has the checkpoint's own again."""
        policy = self.policy
        before, policy.sampler = policy.sampler, self.sampler
        try:
            yield policy
        finally:
            policy.sampler = before

    @property
    def policy(self) -> Any:
        return self.loaded.policy

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the denoiser's blocks, in execution order."""
        return model_blocks(self.policy.model)

    @property
    def steps(self) -> int:
        """Denoising steps of the sampler."""
        return self.sampler.num_inference_steps

    @property
    def task(self) -> Task:
        """The task in its simulator.

        Raises:
            ConfigError: it has none.
        """
        if self.simulated is None:
            raise ConfigError(no_simulator(self.settings.task))
        return self.simulated

    @property
    def simulator_packages(self) -> tuple[str, ...]:
        """What the task's simulator imports, by the names of the modules; empty if it has none."""
        return () if self.simulated is None else self.simulated.environment.requirements.packages

    @property
    def sampler_name(self) -> str:
        """Derived from what the sampler is."""
        return name_of(self.sampler, self.own_sampler)

    @property
    def own_sampler_name(self) -> str:
        return name_of(self.own_sampler, self.own_sampler)

    @property
    def sampler_line(self) -> str:
        """The sampler, and where it comes from, for people."""
        if self.sampler_name == self.own_sampler_name:
            return f"sampler {self.sampler_name}, the checkpoint's own"
        return f"sampler {self.sampler_name} (the checkpoint's own is {self.own_sampler_name})"

    @property
    def tokens(self) -> Tokens:
        """The tokens of a trajectory that are denoised where the policy acts or is timed."""
        return choose_tokens(self.policy, self.settings.chosen_horizon)

    @property
    def chunk(self) -> int | None:
        """Actions of a chunk that the task executes or drops for latency, without those of a `clock`."""
        if self.simulated is None:
            return None
        return self.simulated.chunking.n_action_steps + self.simulated.chunking.n_latency_steps

    @property
    def notes(self) -> list[str]:
        """What has to be said beside every result."""
        lines = notes(self.settings.task, self.loaded)
        if self.chunk not in (None, self.own_chunk):
            lines.append(
                f"{self.chunk} actions of a chunk are executed or dropped for latency; "
                f"the checkpoint's file says {self.own_chunk}"
            )
        if self.clock is not None:
            lines.append(clock_note(self))
        if isinstance(self.cache, Certified):
            lines.append(self.cache.note)
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values; `sampler` says what the sampler turned out to be."""
        return {**self.settings.to_dict(), "sampler": dict(self.sampler_settings)}


def load_experiment(settings: PolicySettings, needs_simulator: bool = True, **seeds: int) -> Experiment:
    """Builds everything and checks that the pieces fit, before anything long starts.

    Args:
        seeds: go before `task.seeds`, such as n_test and n_train.

    Raises:
        ConfigError: they do not; or the simulator, if it `needs_simulator`, is missing.
    """
    device = choose_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # Before the simulator is asked for, which takes longer to get.
    training = Training(settings.train, settings.checkpoint_type)
    checkpoint = find_checkpoint(settings.checkpoint, settings.task, training, bool(settings.download))
    task = None
    if has_simulator(settings.task):
        task = task_from_config(settings.task.to_dict(), **seeds)
    elif needs_simulator:
        raise ConfigError(no_simulator(settings.task))
    if task is not None and needs_simulator:
        task.check_installed()
    loaded = load_policy(checkpoint, settings.weights, device)
    policy = loaded.policy
    if task is not None and (wrong := misfits(task, policy)):
        name = settings.task.name
        raise ConfigError(f"the checkpoint {checkpoint} is not a policy for task {name}: {'; '.join(wrong)}")
    own_sampler, own_chunk = policy.sampler, policy.n_action_steps
    if task is not None:
        execute(policy, task)
    plain = Experiment(
        settings=settings,
        simulated=task,
        loaded=loaded,
        device=device,
        own_sampler=own_sampler,
        own_chunk=own_chunk,
        sampler=own_sampler,
        sampler_settings=resolved(own_sampler, own_sampler, {}),
        recordings=open_recordings(settings, policy),
    )
    return with_entered_clock(plain.with_sampler(settings.sampler_options).with_cache(settings.chosen_cache))
