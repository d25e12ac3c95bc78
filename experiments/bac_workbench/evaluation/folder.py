"""The folder of one evaluation: where it is, what is in it already, and whether that is this very evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.evaluation.stored_results import check_clock, without_code_names
from bac_workbench.settings.clock import MEASURED, REAL, STOPPED
from bac_workbench.settings.evaluation import Evaluation as EvaluationSection
from bac_workbench.setup.clock import clock_facts
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.trainings import Training
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, load_episodes, missing_episodes

SETTINGS, EPISODES = "settings.json", "episodes.jsonl"
WRITTEN = (EPISODES, SETTINGS, "eval_results.json", "benchmark_results.json", "schedule.json", "schedule.png")


def default_output_dir(experiment: Experiment) -> Path:
    """results/<task>/<cache>, with suffixes for what is not the usual.

    These are published training, budget, sampler, precision, weights, chunk length, clock and noise seed.
    """
    settings, cache, task = experiment.settings, experiment.cache, experiment.task
    name = cache.method if cache.label in (cache.method, f"{cache.method}_s10") else cache.label
    if experiment.sampler_name != experiment.own_sampler_name:
        name += f"-{experiment.sampler_name}"
    tag = Training(settings.train, settings.checkpoint_type).tag
    name += f"-{tag}" if tag else ""
    for value, usual in ((settings.precision, "fp32"), (settings.weights, "ema")):
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

    The number of environments alone may differ, for it is what one lowers when memory ran out; the settings then name
    the earlier ones, `earlier_n_envs`.

    Raises:
        ConfigError: another evaluation is there, or a file is damaged; the message says what to do.
    """
    path, rows = output_dir / SETTINGS, output_dir / EPISODES
    settings = {**settings, "earlier_n_envs": []}
    if overwrite:
        for stale in [*(output_dir / name for name in WRITTEN), *(output_dir / "media").glob("*.mp4")]:
            stale.unlink(missing_ok=True)
    elif (rows.exists() and rows.stat().st_size) or (output_dir / "eval_results.json").exists():
        stored = stored_settings(path)
        changed = [
            f"{key} {stored.get(key, 'not recorded')!r} there, {value!r} now"
            for key, value in settings.items()
            if key not in ("n_envs", "earlier_n_envs") and stored.get(key) != value
        ]
        if changed:
            raise ConfigError(
                f"{output_dir} holds another evaluation ({'; '.join(changed) if stored else 'without settings.json'}): "
                "choose another output_dir=, or overwrite=true to start over"
            )
        earlier = [*stored["earlier_n_envs"], stored["n_envs"]]
        settings["earlier_n_envs"] = sorted(set(earlier) - {settings["n_envs"]})
    try:
        if repeated := drop_repeated_rows(rows):
            episode = "episodes" if repeated > 1 else "episode"
            say(f"{rows} held {repeated} {episode} twice, with the same content: the second is dropped")
        results = load_episodes(rows)
        missing_episodes(episodes, results)  # raises if a row is of another evaluation
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{error}; or use overwrite=true" if str(rows) in str(error) else f"{rows} is damaged: {error}"
        ) from error
    write_json(path, settings)
    return settings, results


def stored_settings(path: Path) -> dict[str, Any]:
    """The content of a settings.json; empty if there is none.

    Raises:
        ConfigError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict) or type(stored.get("n_envs")) is not int:
            raise ValueError("it holds no settings of an evaluation")
        earlier = stored.setdefault("earlier_n_envs", [])
        if not isinstance(earlier, list) or any(type(n) is not int for n in earlier):
            raise ValueError("earlier_n_envs is no list of numbers")
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
