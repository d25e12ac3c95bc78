"""Collecting episodes of a policy as a data set.

What is finished is kept in `<output_dir>/.collection`: `settings.json` says what is collected, `episodes.jsonl` has a
line for each finished episode and `records/` its frames, states and actions. The data set beside it is written from
there when all episodes are there, so that an episode is in it whole or not at all. The same command after an
interruption goes on; with more episodes it adds to the data set.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from bac.acceleration import accelerate
from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.lerobot import export, released_layout
from bac_workbench.lerobot.publish import files_of, publish
from bac_workbench.setup.acting import acting
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.rounding import say_rounding
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import leftovers, write_json
from diffusion_policy.common.lock import locked
from diffusion_policy.dataset.lerobot_format import pyarrow
from diffusion_policy.env_runner.episodes import (
    Episode,
    EpisodeResult,
    append_episode,
    load_episodes,
    missing_episodes,
)
from diffusion_policy.env_runner.recording import RecordingEnv, record_folder
from diffusion_policy.env_runner.rollout import RolloutStats, rollout
from diffusion_policy.env_runner.task import Task

KEPT = ".collection"
TRIES_PER_SUCCESS = 20  # episodes rolled out for each one wanted, at most
CHANGEABLE = ("n_envs",)  # may differ when a collection goes on


@dataclass(frozen=True)
class Collection:
    """What a data set was made of: its episodes, those that were left out, and where the time of this run went."""

    episodes: list[EpisodeResult]
    left_out: list[EpisodeResult]
    stats: RolloutStats
    output_dir: Path


def collect(
    experiment: Experiment,
    say: Callable[[str], None] = print,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> Collection:
    """Rolls out what is missing of the collection that the experiment's settings describe, and writes the data set.

    Raises:
        ConfigError: the cache is not possible, `output_dir` holds something else, or too few episodes succeed.
        LockedError: another process writes to `output_dir`.
    """
    pyarrow()  # raises if it is missing, before anything long starts
    experiment.cache.check(experiment.blocks, experiment.steps)
    output_dir = Path(experiment.settings.output_dir).expanduser()
    with locked(output_dir, f"collection of {experiment.settings.task.name}, {experiment.cache.label}"):
        return _collect(experiment, output_dir, say, on_episode)


def _collect(experiment: Experiment, output_dir: Path, say: Callable[[str], None], on_episode) -> Collection:
    settings, kept = experiment.settings, output_dir / KEPT
    schedule = schedule_for(experiment, say)
    identity = collection_settings(experiment, schedule or Schedule.full(experiment.blocks, experiment.steps))
    done = resume(output_dir, identity, settings.overwrite, say)
    for result in done[: settings.n_episodes] if on_episode else ():
        on_episode(result)
    stats, chosen = RolloutStats(), wanted(done, settings.n_episodes, settings.success_only)
    if len(chosen) < settings.n_episodes:
        say_rounding(experiment, schedule, say)
    while len(chosen) < settings.n_episodes:
        episodes = next_episodes(experiment, done, settings.n_episodes - len(chosen))
        fresh, took = roll_out(experiment, schedule, missing_episodes(episodes, done), kept, on_episode)
        done = sorted([*done, *fresh], key=lambda result: result.index)
        stats = summed(stats, took)
        chosen = wanted(done, settings.n_episodes, settings.success_only)
    records = [record_folder(kept / "records", result.seed) for result in chosen]
    write, parts = layout(settings, records)
    publish(output_dir, kept / "data set", write, parts)
    say(f"wrote {len(chosen)} episodes to {output_dir}")
    left_out = [result for result in done if result.index < chosen[-1].index and result not in chosen]
    return Collection(chosen, left_out, stats, output_dir)


def layout(settings: Any, records: list[Path]) -> tuple[Callable[[Path], None], tuple[str, ...]]:
    """What writes the data set, and the files and folders that it has."""
    if settings.format == "original":
        return partial(released_layout.write_released, records=records, fps=settings.fps), released_layout.PARTS
    write = partial(export.write_lerobot, records=records, fps=settings.fps, task=settings.description)
    return write, export.PARTS


def wanted(done: list[EpisodeResult], n_episodes: int, success_only: bool) -> list[EpisodeResult]:
    """The episodes of the data set so far: the first ones without a gap, whatever finished first."""
    without_gap = [result for index, result in enumerate(done) if result.index == index]
    return [result for result in without_gap if result.success or not success_only][:n_episodes]


def next_episodes(experiment: Experiment, done: list[EpisodeResult], missing: int) -> list[Episode]:
    """All episodes up to the `missing` next ones.

    Raises:
        ConfigError: too many were tried already, or there are no further seeds.
    """
    settings = experiment.settings
    known = {result.index for result in done}
    first = next(index for index in range(len(done) + 1) if index not in known)
    count = max(first + missing, len(done))
    if count > TRIES_PER_SUCCESS * settings.n_episodes:
        successes = sum(result.success for result in done)
        raise ConfigError(
            f"{successes} of {len(done)} episodes succeeded, which is too few for n_episodes={settings.n_episodes} "
            "with success_only=true: use another policy or method, a smaller n_episodes, or success_only=false"
        )
    return [Episode(index, settings.seed_start + index, "test") for index in range(count)]


def collection_settings(experiment: Experiment, schedule: Schedule) -> dict[str, Any]:
    """Everything that decides what is recorded, as JSON values."""
    settings, task = experiment.settings, experiment.task
    values = {
        "task": settings.task.name,
        "cache": experiment.cache.label,
        "schedule_digest": schedule.digest,
        "sampler": experiment.sampler_name,
        "checkpoint_noise": noise_digest(experiment.own_sampler.scheduler),
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "runtime": settings.runtime,
        "precision": settings.precision,
        "horizon": settings.horizon,
        "device": experiment.device.type,
        "seed": settings.seed,
        "seed_start": settings.seed_start,
        "n_envs": settings.n_envs,
        "fps": settings.fps,
        "scene": settings.scene,
        "n_action_steps": task.chunking.n_action_steps,
        "n_latency_steps": task.chunking.n_latency_steps,
        "max_steps": task.environment.max_steps,
        "environment": {k: v for k, v in settings.task.environment.to_dict().items() if k != "_target_"},
    }
    return json.loads(json.dumps(values))


def resume(
    output_dir: Path, identity: dict[str, Any], overwrite: bool, say: Callable[[str], None]
) -> list[EpisodeResult]:
    """The finished episodes of this very collection; makes its folder.

    Raises:
        ConfigError: another one, or another data set, is there; or a file is damaged.
    """
    kept = output_dir / KEPT
    path, rows = kept / "settings.json", kept / "episodes.jsonl"
    if overwrite:
        shutil.rmtree(kept, ignore_errors=True)
    elif path.exists():
        changed = differences(path, identity)
        if changed:
            raise ConfigError(
                f"{output_dir} holds another collection ({'; '.join(changed)}): choose another output_dir=, or "
                "overwrite=true to start over"
            )
    elif foreign := [part for part in (*export.PARTS, *released_layout.PARTS) if files_of(output_dir / part)]:
        raise ConfigError(
            f"{output_dir} holds a data set ({', '.join(foreign)}) that cannot be added to, as its {KEPT} folder is "
            "missing: choose another output_dir=, or overwrite=true to write over it"
        )
    (kept / "records").mkdir(parents=True, exist_ok=True)
    for leftover in leftovers(kept / "records"):
        shutil.rmtree(leftover, ignore_errors=True)
    write_json(path, identity)
    done = load_episodes(rows)
    lost = [result for result in done if not record_folder(kept / "records", result.seed).is_dir()]
    if lost:
        raise ConfigError(
            f"{kept / 'records'} lacks episode {lost[0].index}, which {rows.name} lists: restore it, or overwrite=true "
            "to start over"
        )
    if done:
        say(f"{len(done)} episodes are already in {kept}")
    return done


def differences(path: Path, identity: dict[str, Any]) -> list[str]:
    """Where the settings of a stored collection are others, in words. Raises ConfigError if they are damaged."""
    try:
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict):
            raise ValueError("it holds no settings")
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({error}): restore it, or overwrite=true to start over") from error
    return [
        f"{key} {stored.get(key, 'not recorded')!r} there, {value!r} now"
        for key, value in identity.items()
        if key not in CHANGEABLE and stored.get(key) != value
    ]


def roll_out(
    experiment: Experiment, schedule: Schedule | None, todo: list[Episode], kept: Path, on_episode
) -> tuple[list[EpisodeResult], RolloutStats]:
    """Rolls out `todo`, each recorded before its line is written."""
    settings = experiment.settings

    def finished(result: EpisodeResult) -> None:
        append_episode(kept / "episodes.jsonl", result)
        if on_episode is not None:
            on_episode(result)

    task = recorded(experiment.task, kept / "records", settings.fps, settings.scene)
    with (
        experiment.attached() as policy,
        accelerate(policy, schedule, settings.runtime, settings.precision, horizon=settings.horizon) as fast,
        task.vector_env(settings.n_envs, settings.n_workers) as env,
    ):
        return rollout(acting(fast.predict_action, settings.seed), env, todo, on_episode=finished)


def recorded(task: Task, records: Path, fps: float, scene: bool) -> Task:
    """The same task, whose episodes are recorded, and start as the environment starts them."""
    environment = task.environment
    make = partial(
        make_recorded,
        environment.make,
        records=str(records),
        fps=fps,
        max_steps=environment.max_steps,
        view=environment.policy_observation,
        scene=scene,
    )
    return dataclasses.replace(task, environment=dataclasses.replace(environment, make=make, recorded_starts=None))


def make_recorded(make: Callable[[], gymnasium.Env], **options: Any) -> gymnasium.Env:
    """What workers call to make an environment that records."""
    return RecordingEnv(make(), **options)


def summed(one: RolloutStats, other: RolloutStats) -> RolloutStats:
    """The times and counts of two rollouts, one after the other."""
    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other))
    return RolloutStats(*(a + b for a, b in pairs))


def throughput(collection: Collection) -> Iterator[str]:
    """Lines that say how long the rollouts of this run took."""
    stats = collection.stats
    if stats.wall_s:
        yield (
            f"{stats.wall_s:.1f} s for {stats.env_steps} control steps: policy {stats.policy_s:.1f} s "
            f"({stats.policy_share:.0%}), environments and videos {stats.env_s:.1f} s"
        )
