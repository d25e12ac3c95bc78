"""Settings of eval, benchmark and profile_blocks, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from bac_workbench.settings.caches import CACHES, EITHER, Cache, CacheSection, make_cache
from bac_workbench.settings.clock import Clock, LatencyOrNull, Thinking, clock_problems
from bac_workbench.settings.data import ChosenDataset, dataset_problems, with_chosen_dataset
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    CountOrZero,
    Device,
    EnvSeed,
    NoiseSeed,
    Path,
    Section,
    Threads,
    Workers,
    choice,
    integer,
    list_of,
    nullable,
)
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.methods import parse_method
from bac_workbench.settings.rules import Problem, Values, device_problems, precision_problems, seed_problems
from bac_workbench.settings.sacs import BUDGETS
from bac_workbench.settings.sampler import Sampler, sampler_problems
from bac_workbench.settings.schema import kind_of
from bac_workbench.settings.task import ActingHorizon, PathOrNull, Precision, Runtime, Task, Wandb, Weights
from diffusion_policy.common.config import ConfigError

PROFILE_SOURCES = ("rollouts", "dataset")


class Profile(Section):
    source: choice("auto", *PROFILE_SOURCES)
    n_episodes: nullable(Count)
    seed_start: nullable(EnvSeed)
    n_observations: nullable(Count)
    noise_seeds: nullable(list_of(NoiseSeed, "[0,1]"))
    batch_size: Count


Overlap = choice("auto", "always", "never")


class Evaluation(Section):
    n_test: CountOrZero
    n_train: CountOrZero
    n_envs: integer(1, 10_000)
    n_workers: Workers
    overlap: Overlap
    n_videos: CountOrZero
    clock: Clock
    thinking: Thinking
    latency_ms: LatencyOrNull


class Timing(Section):
    n_chunks: CountOrZero
    warmup: CountOrZero


class PolicySettings(Section):
    """What every command has that loads a trained policy and may profile it."""

    task: Task
    device: Device
    checkpoint: PathOrNull
    train: nullable(integer(0, 2))
    checkpoint_type: nullable(choice("max", "avg"))
    download: Boolean
    weights: Weights
    threads: Threads
    assets_dir: Path
    overwrite: Boolean
    profile: Profile

    @property
    def sampler_options(self) -> dict[str, Any]:
        """The `sampler` section; empty: the checkpoint's own sampler."""
        return {}

    @property
    def chosen_cache(self) -> Cache | None:
        """The cache of the whole command; None for those that name several, or none."""
        return None

    @property
    def profiles_observations(self) -> bool:
        """Whether profiles are made from the recorded observations that the settings name."""
        return False

    @property
    def profiling_runtime(self) -> str:
        """In which runtime the full policy acts while its states are collected."""
        return "planned"

    @property
    def chosen_horizon(self) -> str:
        """Which tokens are denoised where a policy acts: `executed` or `full`."""
        return "executed"


class ActingSettings(PolicySettings):
    """What a command has in which one policy acts, with one cache and sampler."""

    cache: CacheSection
    sampler: Sampler
    seed: NoiseSeed
    runtime: Runtime
    precision: Precision
    horizon: ActingHorizon

    @property
    def sampler_options(self) -> dict[str, Any]:
        return {} if self.sampler is None else self.sampler.to_dict()

    @property
    def chosen_cache(self) -> Cache:
        return make_cache(self.cache.to_dict())

    @property
    def profiling_runtime(self) -> str:
        return "reference" if self.runtime == "reference" else "planned"

    @property
    def chosen_horizon(self) -> str:
        return self.horizon

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from precision_problems(values, [values("runtime")])
        yield from profile_problems(values)
        yield from cache_problems(values)
        yield from sampler_problems(values)


class Eval(ActingSettings):
    launcher: Launcher
    output_dir: PathOrNull
    eval: Evaluation
    benchmark: Timing
    wandb: Wandb

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from ActingSettings.rules(values)
        test, train = values("eval.n_test"), values("eval.n_train")
        if test == 0 and train == 0:
            yield "eval.n_test", "there is nothing to evaluate: eval.n_test or eval.n_train has to be at least 1"
        yield from seed_problems(
            values("task.seeds.test_start_seed"), test, "task.seeds.test_start_seed", "eval.n_test"
        )
        yield from seed_problems(
            values("task.seeds.train_start_seed"), train, "task.seeds.train_start_seed", "eval.n_train"
        )
        yield from clock_problems(values)
        if values("eval.overlap") == "always" and values("eval.n_workers") == 0:
            yield "eval.overlap", "always needs processes for the environments: leave out eval.n_workers=0"
        steps = values("sampler.steps")
        for name in ("cache.budget", "cache.interval"):
            if values(name) is not None and steps is not None and values(name) > steps:
                yield name, f"use 1 to {steps}, the sampler's number of steps"
        late = [step for step in values("cache.forced_refresh") or () if steps is not None and step >= steps]
        if late:
            yield "cache.forced_refresh", f"use steps from 0 to {steps - 1}, those of the sampler"


class ProfilingSettings(PolicySettings):
    """What a command has that looks into a policy, on states of rollouts or of a data set."""

    dataset: ChosenDataset | None
    sampler: Sampler

    @property
    def sampler_options(self) -> dict[str, Any]:
        return {} if self.sampler is None else self.sampler.to_dict()

    def on_chosen_dataset(self) -> Self:
        """The same settings; where `dataset=` chose a data set, the task has it, and it is what is looked at."""
        settings = with_chosen_dataset(self)
        return self if settings is self else settings.replace(profile=self.profile.replace(source="dataset"))

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from dataset_problems(values)
        if values("dataset._target_") is not None and values("profile.source") == "rollouts":
            yield "profile.source", "rollouts look at no data set: use dataset or auto with dataset=lerobot"
        yield from profile_problems(values)
        yield from sampler_problems(values)


def profile_problems(values: Values) -> Iterator[Problem]:
    first, episodes = values("profile.seed_start"), values("profile.n_episodes")
    yield from seed_problems(first, episodes, "profile.seed_start", "profile.n_episodes")
    if values("profile.source") == "dataset" and (first, episodes) != (None, None):
        yield (
            "profile.source",
            "profile.n_episodes and profile.seed_start are of rollouts: leave them out with profile.source=dataset",
        )


def cache_problems(values: Values) -> Iterator[Problem]:
    """cache.method=bac instead of cache=bac keeps the settings of the other cache's file, which may lack some."""
    method = values("cache.method")
    if method not in CACHES:
        return
    chosen = {name: value for name, value in (values("sampler") or {}).items() if value is not None}
    if method == "tuned" and chosen and chosen != {"type": "checkpoint"}:
        named = ", ".join(f"sampler.{name}" for name in chosen)
        yield "cache.method", f"the certificate says which sampler: leave {named} (sampler=) out with cache=tuned"
    if missing := CACHES[method].missing(values("cache")):
        names = ", ".join(f"cache.{name}" for name in missing)
        yield "cache.method", f"{names} missing: choose it with cache={method}"
    for name, field in CACHES[method].model_fields.items():
        if name in values("cache") and values(f"cache.{name}") is None and not kind_of(field).null:
            yield f"cache.{name}", f"{method} needs it: use {kind_of(field).allowed}"
    budgets = [f"cache.{name}" for name in BUDGETS if values(f"cache.{name}") is not None]
    if method == "sacs" and len(budgets) > 1:
        yield budgets[-1], f"give one budget only, not {' and '.join(budgets)}"
    if method == "uniform" and values("cache.interval") is not None and values("cache.budget") is not None:
        yield "cache.interval", f"with cache.budget={values('cache.budget')}: {EITHER}"
    if values("cache.forced_refresh") and "forced_refresh" not in CACHES[method].model_fields:
        yield "cache.forced_refresh", f"this is an option of cache=bac: {method} has none"


def method_problems(path: str, methods: list[str] | None, steps: int | None) -> Iterator[Problem]:
    """Of names such as bac_s7@ddim16; `steps`: of the sampler, where the name does not choose it."""
    for text in methods or ():
        try:
            method = parse_method(text)
        except ConfigError as error:
            yield path, str(error)
            continue
        budget = getattr(method.cache, "budget", None)
        allowed = method.sampler.get("steps") if steps is None or "@" in text else steps
        if budget is not None and (budget < 1 or allowed is not None and budget > allowed):
            limit = allowed or "the number of steps"
            yield path, f"{text} has a budget of {budget}: use 1 to {limit}, the sampler's number of steps"
