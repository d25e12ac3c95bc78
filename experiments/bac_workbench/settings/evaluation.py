"""Settings of eval, benchmark and profile_blocks, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from bac.acs import OBJECTIVES
from bac.similarity import METRICS
from bac_workbench.benchmark.run import parse_method
from bac_workbench.caching.schedules import METHODS
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    CountOrZero,
    Device,
    EnvSeed,
    Kind,
    NoiseSeed,
    Path,
    Positive,
    Section,
    Share,
    Text,
    Threads,
    Workers,
    choice,
    integer,
    list_of,
    nullable,
)
from bac_workbench.settings.rules import Problem, Values, device_problems, precision_problems, seed_problems
from bac_workbench.settings.task import PathOrNull, Precision, Runtime, Task, Wandb, Weights
from bac_workbench.setup.samplers import SCHEDULERS
from diffusion_policy.common.config import ConfigError

Steps = integer(1, 100_000)
Batch = Annotated[
    Count | list_of(Count, "[1,28]"),
    Kind("a whole number from 1 to 1,000,000, or a list of them without repeats such as [1,28]"),
]


class Sampler(Section):
    name: nullable(Text)
    type: nullable(choice(*dict.fromkeys(["checkpoint", *SCHEDULERS])))
    steps: nullable(Steps)
    eta: nullable(Share)
    timestep_spacing: nullable(choice("leading", "linspace", "trailing"))
    steps_offset: nullable(CountOrZero)
    clip_sample: nullable(Boolean)
    clip_sample_range: nullable(Positive)
    thresholding: nullable(Boolean)
    set_alpha_to_one: nullable(Boolean)
    use_clipped_model_output: nullable(Boolean)
    solver_order: nullable(integer(1, 3))


class Cache(Section):
    method: choice(*METHODS)
    budget: Steps
    metric: choice(*METRICS)
    objective: choice(*OBJECTIVES)
    top_k: CountOrZero
    forced_refresh: nullable(list_of(integer(0, 99_999), "[99]", empty=True))


class Profile(Section):
    source: choice("auto", "rollouts", "dataset")
    n_episodes: nullable(Count)
    seed_start: nullable(EnvSeed)
    n_observations: nullable(Count)
    noise_seeds: nullable(list_of(NoiseSeed, "[0,1]"))
    batch_size: Count


class Evaluation(Section):
    n_test: CountOrZero
    n_train: CountOrZero
    n_envs: integer(1, 10_000)
    n_workers: Workers
    n_videos: CountOrZero


class Timing(Section):
    n_chunks: CountOrZero
    warmup: CountOrZero


class Eval(Section):
    task: Task
    cache: Cache
    sampler: Sampler
    seed: NoiseSeed
    device: Device
    checkpoint: PathOrNull
    weights: Weights
    runtime: Runtime
    precision: Precision
    threads: Threads
    output_dir: PathOrNull
    assets_dir: Path
    overwrite: Boolean
    eval: Evaluation
    profile: Profile
    benchmark: Timing
    wandb: Wandb

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from precision_problems(values, [values("runtime")])
        test, train = values("eval.n_test"), values("eval.n_train")
        if test == 0 and train == 0:
            yield "eval.n_test", "there is nothing to evaluate: eval.n_test or eval.n_train has to be at least 1"
        yield from seed_problems(
            values("task.seeds.test_start_seed"), test, "task.seeds.test_start_seed", "eval.n_test"
        )
        yield from seed_problems(
            values("task.seeds.train_start_seed"), train, "task.seeds.train_start_seed", "eval.n_train"
        )
        yield from seed_problems(
            values("profile.seed_start"), values("profile.n_episodes"), "profile.seed_start", "profile.n_episodes"
        )
        yield from cache_problems(values)
        budget, steps = values("cache.budget"), values("sampler.steps")
        if budget is not None and steps is not None and budget > steps:
            yield "cache.budget", f"use 1 to {steps}, the sampler's number of steps"
        late = [step for step in values("cache.forced_refresh") or () if steps is not None and step >= steps]
        if late:
            yield "cache.forced_refresh", f"use steps from 0 to {steps - 1}, those of the sampler"


class ProfileBlocks(Section):
    task: Task
    sampler: Sampler
    device: Device
    checkpoint: PathOrNull
    weights: Weights
    threads: Threads
    assets_dir: Path
    overwrite: Boolean
    profile: Profile
    schedules: list_of(Text, "[bac_s10,bac_s7]", empty=True)

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from seed_problems(
            values("profile.seed_start"), values("profile.n_episodes"), "profile.seed_start", "profile.n_episodes"
        )
        yield from method_problems("schedules", values("schedules"), values("sampler.steps"))


class Benchmark(Section):
    task: Task
    methods: list_of(Text, "[full,bac_s10]")
    runtimes: list_of(Runtime, "[reference,planned]")
    batch: Batch
    n_chunks: Count
    warmup: CountOrZero
    precision: Precision
    threads: Threads
    device: Device
    seed: NoiseSeed
    checkpoint: PathOrNull
    weights: Weights
    assets_dir: Path
    output_dir: Path
    overwrite: Boolean
    trace: Boolean
    profile: Profile

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        # The reference runtime always computes in fp32: it is what the others are compared with.
        yield from precision_problems(
            values, [runtime for runtime in values("runtimes") or () if runtime != "reference"]
        )
        yield from seed_problems(
            values("profile.seed_start"), values("profile.n_episodes"), "profile.seed_start", "profile.n_episodes"
        )
        yield from method_problems("methods", values("methods"), None)


def cache_problems(values: Values) -> Iterator[Problem]:
    """cache.method=bac instead of cache=bac keeps the settings of the other cache's file, which may lack some."""
    method = values("cache.method")
    adaptive = ("budget", "metric", "objective")
    needed = {"full": (), "uniform": ("budget",), "bac": (*adaptive, "top_k")}.get(method, adaptive)
    missing = [name for name in needed if name not in (values("cache") or {})]
    if method is not None and missing:
        yield "cache.method", f"{', '.join(f'cache.{name}' for name in missing)} missing: choose it with cache={method}"


def method_problems(path: str, methods: list[str] | None, steps: int | None) -> Iterator[Problem]:
    """Of names such as bac_s7@ddim16; `steps`: of the sampler, where the name does not choose it."""
    for text in methods or ():
        try:
            method = parse_method(text)
        except ConfigError as error:
            yield path, str(error)
            continue
        budget = method.cache.get("budget")
        allowed = method.sampler.get("steps") if steps is None or "@" in text else steps
        if budget is not None and (budget < 1 or allowed is not None and budget > allowed):
            yield (
                path,
                f"{text} has a budget of {budget}: use 1 to {allowed or 'the number of steps'}, the sampler's number of steps",
            )
