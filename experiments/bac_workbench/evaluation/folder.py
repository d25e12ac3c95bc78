"""The folder of one evaluation: where it is, what is in it already, and whether that is this very evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.evaluation.stored_results import check_clock, without_code_names
from bac_workbench.provenance import commit
from bac_workbench.settings.clock import MEASURED, REAL, STOPPED
from bac_workbench.settings.evaluation import Evaluation as EvaluationSection
from bac_workbench.setup.clock import clock_facts
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.trainings import Training
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, load_episodes, missing_episodes

SETTINGS, EPISODES = "settings.json", "episodes.jsonl"
RESULTS, BENCHMARK = "eval_results.json", "benchmark_results.json"
WRITTEN = (EPISODES, SETTINGS, RESULTS, BENCHMARK, "schedule.json", "schedule.png")
#: settings that may change from one call to the next: `resume` says what becomes of each
MAY_CHANGE = ("n_envs", "earlier_n_envs", "episodes", "commit", "earlier_commits")


def default_output_dir(experiment: Experiment) -> Path:
    """results/<task>/<cache>, with suffixes for what is not the usual, in this order.

    These are budget and other settings of the cache; a sampler that is not the checkpoint's own; the published
    training, or the hash of a checkpoint that is not the task's; a runtime that is not `planned`, precision, weights,
    chunk length, latency, clock, and the noise seed unless it is 0.
    """
    settings, cache, task = experiment.settings, experiment.cache, experiment.task
    name = cache.method if cache.label in (cache.method, f"{cache.method}_s10") else cache.label
    if experiment.sampler_name != experiment.own_sampler_name:
        name += f"-{experiment.sampler_name}"
    tag = Training(settings.train, settings.checkpoint_type).tag
    if not tag and settings.checkpoint != settings.task.checkpoint:
        tag = experiment.loaded.hash[:8]
    name += f"-{tag}" if tag else ""
    for value, usual in ((settings.runtime, "planned"), (settings.precision, "fp32"), (settings.weights, "ema")):
        name += "" if value == usual else f"-{value}"
    if experiment.chunk != experiment.own_chunk:
        name += f"-actions{task.chunking.n_action_steps}"
    if task.chunking.n_latency_steps:
        name += f"-latency{task.chunking.n_latency_steps}"
    name += clock_suffix(settings.eval)
    name += f"-seed{settings.seed}" if settings.seed else ""
    return Path("results") / settings.task.name / name


def clock_suffix(settings: EvaluationSection) -> str:
    """'-async-52ms' where the world goes on while the policy thinks."""
    if settings.clock != REAL:
        return ""
    times = settings.latency_ms
    if times == MEASURED:
        return f"-{settings.thinking}-{times}"
    text = f"{min(times):g}to{max(times):g}" if isinstance(times, list) else f"{times:g}"
    return f"-{settings.thinking}-{text}ms"


def open_output_dir(experiment: Experiment, folder: str | Path | None = None) -> Path:
    """Creates the output folder.

    Args:
        folder: in place of the one that the settings name.

    Raises:
        ConfigError: results cannot be written there.
    """
    named = experiment.settings.output_dir if folder is None else folder
    folder = default_output_dir(experiment) if named is None else Path(named).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may probe, too
    except OSError as error:
        raise ConfigError(
            f"results cannot be written to {folder} ({error.strerror}): choose another output_dir="
        ) from error
    return folder


def evaluation_settings(experiment: Experiment, schedule: Schedule, episodes: list[Episode]) -> dict[str, Any]:
    """Everything that decides the episodes' numbers, as JSON values; a folder holds the results of one such set."""
    settings, task = experiment.settings, experiment.task
    values = {
        "task": settings.task.name,
        "cache": experiment.cache.label,
        "schedule_digest": schedule.digest,
        "sampler": experiment.sampler_name,
        "sampler_steps": experiment.steps,
        "checkpoint_sampler": experiment.own_sampler_name,
        "checkpoint_noise": noise_digest(experiment.own_sampler.scheduler),
        "n_blocks": len(schedule.blocks),
        "checkpoint_hash": experiment.loaded.hash,
        "train": settings.train,
        "checkpoint_type": settings.checkpoint_type,
        "weights": experiment.loaded.weights,
        "runtime": settings.runtime,
        "precision": settings.precision,
        "device": experiment.device.type,
        "seed": settings.seed,
        "n_envs": settings.eval.n_envs,
        "n_action_steps": task.chunking.n_action_steps,
        "n_latency_steps": task.chunking.n_latency_steps,
        "max_steps": task.environment.max_steps,
        "clock": clock_facts(experiment),
        "episodes": len(episodes),
        "adapter": simulation_settings(settings.task.to_dict()),
        "commit": commit(),
    }
    return json.loads(json.dumps(values))


def simulation_settings(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a task's section says of its simulation: environment, chunking and seeds, but for the number of episodes."""
    chunking = {name: task[name] for name in ("n_obs_steps", "n_action_steps", "n_latency_steps")}
    seeds = {name: value for name, value in task["seeds"].items() if name not in ("n_train", "n_test")}
    return without_code_names({**chunking, **seeds, **task["environment"]})


def resume(
    output_dir: Path,
    settings: dict[str, Any],
    episodes: list[Episode],
    overwrite: bool,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Settings and finished episodes of this very evaluation. Refuses a folder with another one unless `overwrite`.

    Three things may differ. There may be more episodes than before: the finished ones are kept, for each depends on
    its own seeds alone. The number of environments, which one lowers when memory ran out, and the commit: the settings
    then name the earlier ones, `earlier_n_envs` and `earlier_commits`.

    Raises:
        ConfigError: another evaluation is there, or one of more episodes, or a file is damaged; the message says what
            to do.
    """
    path, rows = output_dir / SETTINGS, output_dir / EPISODES
    settings = {**settings, "earlier_n_envs": [], "earlier_commits": []}
    stored: dict[str, Any] = {}
    if overwrite:
        for stale in [*(output_dir / name for name in WRITTEN), *(output_dir / "media").glob("*.mp4")]:
            stale.unlink(missing_ok=True)
    elif (rows.exists() and rows.stat().st_size) or (output_dir / RESULTS).exists():
        stored = stored_settings(path)
        changed = [
            f"{key} {stored.get(key, 'not recorded')!r} there, {value!r} now"
            for key, value in settings.items()
            if key not in MAY_CHANGE and stored.get(key) != value
        ]
        if changed:
            raise ConfigError(
                f"{output_dir} holds another evaluation ({'; '.join(changed) if stored else 'without settings.json'}): "
                "choose another output_dir=, or overwrite=true to start over"
            )
        for now, earlier in (("n_envs", "earlier_n_envs"), ("commit", "earlier_commits")):
            settings[earlier] = sorted({*stored[earlier], stored[now]} - {settings[now]})
    try:
        if repeated := drop_repeated_rows(rows):
            episode = "episodes" if repeated > 1 else "episode"
            say(f"{rows} held {repeated} {episode} twice, with the same content: the second is dropped")
        results = load_episodes(rows)
        if stored:
            check_growth(output_dir, stored["episodes"], results, episodes, say)
        missing_episodes(episodes, results)  # raises if a row is of another evaluation
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{error}; or use overwrite=true" if str(rows) in str(error) else f"{rows} is damaged: {error}"
        ) from error
    write_json(path, settings)
    return settings, results


def check_growth(
    output_dir: Path, before: int, results: list[EpisodeResult], episodes: list[Episode], say: Callable[[str], None]
) -> None:
    """Whether the stored evaluation of `before` episodes, with these finished, can become that of `episodes`.

    Raises:
        ConfigError: there would be fewer than are finished, or the numbers of train episodes differ, so that test
            episodes would change their places.
    """
    if before == len(episodes):
        return
    otherwise = "choose another output_dir=, or overwrite=true to start over"
    train = sum(episode.split == "train" for episode in episodes)
    planned = {episode.index: episode.seed for episode in episodes}
    kept = 1 + max(result.index for result in results) if results else before
    if any(planned.get(result.index, result.seed) != result.seed for result in results):
        raise ConfigError(
            f"{output_dir} holds an evaluation with another number of train episodes (eval.n_train), which come before "
            f"the test episodes. Only eval.n_test can grow: {otherwise}"
        )
    if len(episodes) < kept:
        raise ConfigError(
            f"{output_dir} holds an evaluation of {before} episodes, {len(results)} of them finished, and "
            f"{len(episodes)} are asked for: finished ones are never thrown away. Use eval.n_test={kept - train} or "
            "more, or leave it as it is, since bac compare takes the episodes that two runs share; or "
            f"{otherwise}"
        )
    if len(episodes) > before:
        say(
            f"{output_dir} held an evaluation of {before} episodes: the {len(results)} finished ones are kept, "
            f"{len(episodes) - len(results)} are added"
        )


def stored_settings(path: Path) -> dict[str, Any]:
    """The content of a settings.json; empty if there is none.

    Raises:
        ConfigError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict) or any(type(stored.get(name)) is not int for name in ("n_envs", "episodes")):
            raise ValueError("it holds no settings of an evaluation")
        stored.setdefault("commit", "unknown")  # earlier versions did not write it here
        for name, kind, words in (("earlier_n_envs", int, "numbers"), ("earlier_commits", str, "commits")):
            earlier = stored.setdefault(name, [])
            if not isinstance(earlier, list) or any(type(item) is not kind for item in earlier):
                raise ValueError(f"{name} is no list of {words}")
        if not isinstance(stored["commit"], str):
            raise ValueError("its commit is no text")
        check_clock(stored.setdefault("clock", STOPPED))  # earlier versions knew no other
        stored["adapter"] = without_code_names(stored.get("adapter"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}): restore it, choose another output_dir=, or overwrite=true to start over"
        ) from error
    return stored


def drop_repeated_rows(path: Path) -> int:
    """Removes complete lines that say the same as an earlier one, as two processes in one folder write.

    Returns:
        How many there were.
    """
    if not path.exists():
        return 0
    complete, end, rest = path.read_bytes().rpartition(b"\n")
    lines = complete.split(b"\n") if end else []
    kept = list(dict.fromkeys(lines))
    if len(kept) < len(lines):
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"\n".join(kept) + end + rest)
    return len(lines) - len(kept)
