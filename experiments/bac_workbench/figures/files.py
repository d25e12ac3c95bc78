"""The folder of one set of figures: what is in it, and whether that may be replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bac.similarity import METRICS
from bac_workbench.evaluation.folder import simulation_settings
from bac_workbench.evaluation.stored_results import without_code_names
from bac_workbench.figures.states import source_of
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.replacing import ADVICE, refuse_another
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.trainings import Training
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path

DESCRIPTION, NUMBERS = "figures.json", "figures.npz"
FORMATS = ("png", "pdf")


def stems(metrics: list[str] | tuple[str, ...]) -> list[str]:
    """Names of the pictures, without their endings."""
    maps = [f"{figure}_{metric}" for figure in ("similarity", "homogeneity") for metric in metrics]
    return [*maps, "similarity_change", "error_surge"]


def written(metrics: list[str] | tuple[str, ...]) -> list[str]:
    """Names of all files."""
    return [DESCRIPTION, NUMBERS, *(f"{stem}.{ending}" for stem in stems(metrics) for ending in FORMATS)]


def output_folder(experiment: Experiment) -> Path:
    """The folder that the settings name, or results/<task>/figures with suffixes for what is not the usual."""
    settings = experiment.settings
    if settings.output_dir is not None:
        return Path(settings.output_dir).expanduser()
    name = "figures"
    if experiment.sampler_name != experiment.own_sampler_name:
        name += f"-{experiment.sampler_name}"
    tag = Training(settings.train, settings.checkpoint_type).tag
    name += f"-{tag}" if tag else ""
    return Path("results") / settings.task.name / (name + ("" if settings.weights == "ema" else f"-{settings.weights}"))


def figure_settings(experiment: Experiment) -> dict[str, Any]:
    """Everything that decides the numbers, as JSON values; a folder holds the figures of one such set."""
    settings, source = experiment.settings, source_of(experiment)
    task = settings.task.to_dict()
    values = {
        "task": settings.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "sampler": experiment.sampler_name,
        "device": experiment.device.type,
        "metrics": settings.metrics,
        "source": source,
        "episodes": settings.episodes,
        "n_states": settings.n_states,
        "caches": settings.caches,
        "budget": settings.budget,
        "mark": settings.mark,
        "profile": ProfileSettings.of(settings.profile).requested,
    }
    if source == "rollouts":
        values |= {"first_seed": settings.first_seed, "adapter": simulation_settings(task)}
    else:
        values["dataset"] = without_code_names(task["dataset"])
    return json.loads(json.dumps(values))


def check_folder(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Refuses a folder with figures of something else, or with files that nothing describes.

    Args:
        settings: see `figure_settings`.
        overwrite: whether they may be replaced.

    Raises:
        ConfigError: it holds such, or its description is damaged.
    """
    path = folder / DESCRIPTION
    if overwrite:
        return
    if not path.exists():
        if there := [name for name in written(tuple(METRICS)) if (folder / name).exists()]:
            raise ConfigError(f"{folder / there[0]} is there, and nothing says what it shows: {ADVICE}")
        return
    refuse_another(path, "settings", settings, "set of figures")


def remove_others(folder: Path, metrics: list[str]) -> None:
    """Removes figures of metrics that are not asked for any more."""
    for name in set(written(tuple(METRICS))) - set(written(metrics)):
        (folder / name).unlink(missing_ok=True)


def save_numbers(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(folder / NUMBERS) as path, open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
