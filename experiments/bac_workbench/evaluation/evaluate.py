"""One evaluation: roll a policy out with a cache, and write what came of it.

Files in the output folder, each complete or absent: `settings.json` (what this evaluation is), `episodes.jsonl` (a line
per finished episode, appended as it finishes), `eval_results.json`, `benchmark_results.json`, `schedule.json`,
`schedule.png`, `media/*.mp4`. An interrupted evaluation goes on from `episodes.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bac.acceleration import accelerate
from bac.figures import plot_schedule
from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.evaluation.clock import in_real_time
from bac_workbench.evaluation.folder import BENCHMARK, EPISODES, RESULTS, evaluation_settings, resume
from bac_workbench.evaluation.summary import PLAIN, SPEEDUPS, summarise
from bac_workbench.setup.acting import acting, acting_on
from bac_workbench.setup.clock import giving_chunks
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.rounding import say_rounding
from bac_workbench.sweeps.cell import cells_at_once
from bac_workbench.timing.latency import interleaved, levers, speed_ratio
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, append_episode, missing_episodes
from diffusion_policy.env_runner.rollout import RolloutStats, rollout


@dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation, as stored.

    Attributes:
        was_there: it was finished before, and nothing ran.
    """

    results: dict[str, Any]
    benchmark: dict[str, Any] | None
    episodes: list[EpisodeResult]
    output_dir: Path
    was_there: bool = False


def evaluate(
    experiment: Experiment,
    output_dir: Path,
    say: Callable[[str], None] = print,
    on_episode=None,
    on_start: Callable[[], None] | None = None,
    keep_finished: bool = False,
) -> Evaluation:
    """Runs what is missing of the evaluation that the experiment describes and writes all its files.

    Args:
        keep_finished: leave the files of a finished evaluation as they are; else its times are measured again.
        say: is told what is done.
        on_episode: is called with each `EpisodeResult` as it is there.
        on_start: is called once, before any episode, when `output_dir` was found to be this evaluation's own.

    Raises:
        ConfigError: the cache is not possible for this model and sampler.
        LockedError: another process writes to `output_dir`.
    """
    experiment.cache.check(experiment.blocks, experiment.steps)
    with locked(output_dir, f"evaluation of {experiment.settings.task.name}, {experiment.cache.label}"):
        return _evaluate(experiment, output_dir, say, on_episode, on_start, keep_finished)


def _evaluate(
    experiment: Experiment, output_dir: Path, say: Callable[[str], None], on_episode, on_start, keep_finished: bool
) -> Evaluation:
    schedule = schedule_for(experiment, say)
    # Not before: a schedule is for the chunk that is executed, and does not change with the time that it takes.
    experiment = in_real_time(experiment, schedule, output_dir, say)
    with giving_chunks(experiment):
        return _evaluate_schedule(experiment, schedule, output_dir, say, on_episode, on_start, keep_finished)


def _evaluate_schedule(
    experiment: Experiment,
    schedule: Schedule | None,
    output_dir: Path,
    say: Callable[[str], None],
    on_episode,
    on_start,
    keep_finished: bool,
) -> Evaluation:
    if experiment.clock is not None:
        say(f"denoising {experiment.tokens}")
    computed = schedule or Schedule.full(experiment.blocks, experiment.steps)
    episodes = experiment.task.episodes()
    settings = evaluation_settings(experiment, computed, episodes)
    settings, done = resume(output_dir, settings, episodes, experiment.settings.overwrite, say)
    if on_start is not None:
        on_start()
    if done:
        say(f"{len(done)} of {len(episodes)} episodes are already in {output_dir / EPISODES}")
        if settings["earlier_n_envs"]:
            say(
                f"eval.n_envs={settings['n_envs']} now, {settings['earlier_n_envs']} before: with another batch size "
                "the policy rounds differently, so the remaining episodes can differ from those of an uninterrupted "
                "evaluation"
            )
        for result in done if on_episode else ():
            on_episode(result)
    if keep_finished and (finished := finished_before(experiment, output_dir, done, len(episodes))) is not None:
        return finished
    if schedule is not None:
        schedule.save(output_dir / "schedule.json")
        plot_schedule(schedule, output_dir / "schedule.png")

    stats = RolloutStats()
    todo = missing_episodes(episodes, done)
    if todo:
        say_rounding(experiment, schedule, say)
        fresh, stats = roll_out(experiment, schedule, todo, episodes, output_dir, on_episode)
        done = sorted([*done, *fresh], key=lambda result: result.index)
    benchmark = measure_latency(experiment, schedule) if experiment.settings.benchmark.n_chunks > 0 else None
    results = summarise(experiment, computed, settings, done, stats, benchmark)
    if benchmark is not None:
        write_json(output_dir / BENCHMARK, {**benchmark, "provenance": results["provenance"]})
    write_json(output_dir / RESULTS, results)
    return Evaluation(results, benchmark, done, output_dir)


def finished_before(
    experiment: Experiment, output_dir: Path, done: list[EpisodeResult], planned: int
) -> Evaluation | None:
    """What an earlier call stored, if it had all `planned` episodes and, where times are asked for, these too."""
    results = read_stored(output_dir / RESULTS)
    timed = experiment.settings.benchmark.n_chunks > 0
    benchmark = read_stored(output_dir / BENCHMARK) if timed else None
    if len(done) < planned or results is None or len(results.get("episodes", ())) != planned:
        return None
    if timed and benchmark is None:
        return None
    return Evaluation(results, benchmark, done, output_dir, was_there=True)


def read_stored(path: Path) -> dict[str, Any] | None:
    """The content of a result file; None if it is missing or damaged, after which it is written anew."""
    try:
        stored = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


def roll_out(
    experiment: Experiment,
    schedule: Schedule | None,
    todo: list[Episode],
    episodes: list[Episode],
    output_dir: Path,
    on_episode,
) -> tuple[list[EpisodeResult], RolloutStats]:
    """Rolls out `todo`; rows are written as episodes finish."""
    settings = experiment.settings
    tests = [episode.index for episode in episodes if episode.split == "test"]
    batches = batches_in_turn(experiment, len(todo))
    filmed = (tests or [episode.index for episode in episodes])[: settings.eval.n_videos]

    def finished(result: EpisodeResult) -> None:
        append_episode(output_dir / EPISODES, result)
        if on_episode is not None:
            on_episode(result)

    with (
        experiment.attached() as policy,
        accelerate(policy, schedule, settings.runtime, settings.precision, horizon=settings.chosen_horizon) as fast,
        experiment.task.vector_env(batches * settings.eval.n_envs, settings.eval.n_workers) as env,
    ):
        inpaints = experiment.clock is not None and experiment.clock.inpaints
        return rollout(
            acting_on(policy, settings.seed) if inpaints else acting(fast.predict_action, settings.seed),
            env,
            todo,
            clock=experiment.clock,
            on_episode=finished,
            media_dir=output_dir / "media",
            video_indices=set(filmed),
            batches=batches,
        )


def batches_in_turn(experiment: Experiment, todo: int) -> int:
    """Two batches of environments, one of which moves while the policy computes for the other, or one.

    By themselves two only where other processes move them, one process has several (those that draw images need much
    memory each), and there are episodes for more than one.
    """
    chosen = experiment.settings.eval
    if chosen.overlap != "auto":
        return 2 if chosen.overlap == "always" else 1
    alone = chosen.n_workers == 0 or experiment.task.environment.one_env_per_process
    return 1 if alone or todo <= chosen.n_envs else 2


def measure_latency(experiment: Experiment, schedule: Schedule | None, runtime: str | None = None) -> dict[str, Any]:
    """Batch-1 latency of this method, of the plain policy and of the full policy in the method's runtime.

    All in one interleaved run. `speedup` is against the plain policy, which denoises all tokens;
    `speedup_same_runtime` against the full policy with the checkpoint's own sampler in the method's own runtime and
    precision, with the method's tokens, so that what these gain is not taken for what a schedule gains. `levers` are
    the factors of `speedup`, for which the full policy is timed with all tokens, too.

    Args:
        runtime: in place of that of the settings.
    """
    settings, name, own = experiment.settings, experiment.cache.label, experiment.own_sampler_name
    precision = settings.precision
    runtime = settings.runtime if runtime is None else runtime
    kept = experiment.tokens.kept
    plain, full, method = (PLAIN, "reference"), ("full policy", runtime), (name, runtime)
    whole = full if kept is None else ("full policy, all tokens", runtime)
    samplers = {
        plain: make_sampler(experiment.own_sampler, None, "reference"),
        whole: make_sampler(experiment.own_sampler, None, runtime, precision),
        full: make_sampler(experiment.own_sampler, None, runtime, precision, tokens=kept),
        method: make_sampler(experiment.sampler, schedule, runtime, precision, tokens=kept),
    }
    rounds, warmup = settings.benchmark.n_chunks, settings.benchmark.warmup
    latencies, _ = interleaved(experiment.policy, samplers, 1, rounds, warmup)
    if (pace := experiment.task.pace) is not None:  # the others of a chunk bridge a delay: they are not executed, too
        latencies = {key: replace(item, n_action_steps=pace.interval) for key, item in latencies.items()}

    def entry(key: tuple[str, str], name: str, sampler: str, precision: str) -> dict[str, Any]:
        tokens = samplers[key].tokens or experiment.tokens.total
        facts = {"name": name, "sampler": sampler, "runtime": key[1], "precision": precision, "tokens": tokens}
        return {**facts, **latencies[key].to_dict()}

    return {
        "batch": 1,
        "cells_at_once": cells_at_once(),  # of a sweep, on this machine: they disturb each other's times
        "method": entry(method, name, experiment.sampler_name, precision),
        "plain_policy": entry(plain, "full", own, "fp32"),
        "full_same_runtime": entry(full, "full", own, precision),
        "full_same_runtime_all_tokens": entry(whole, "full", own, precision),
        "speedup": round(speed_ratio(latencies[plain], latencies[method]), 3),
        "speedup_same_runtime": round(speed_ratio(latencies[full], latencies[method]), 3),
        "levers": levers(latencies[plain], latencies[whole], latencies[full], latencies[method]),
        "kinds": SPEEDUPS,
    }
