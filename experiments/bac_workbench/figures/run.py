"""Makes the figures of a policy: measures, draws, and writes the numbers beside the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bac.drawing import save
from bac.figures import draw_similarity
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.figures.errors import Drawn, draw_errors
from bac_workbench.figures.files import (
    DESCRIPTION,
    FORMATS,
    check_folder,
    figure_settings,
    output_folder,
    remove_others,
    save_numbers,
)
from bac_workbench.figures.maps import draw_changes, draw_homogeneity
from bac_workbench.figures.measure import Measured, measure
from bac_workbench.figures.report import arrays_of, described, drawn_of, summary
from bac_workbench.figures.states import states_of
from bac_workbench.profiling.profiles import profile_for
from bac_workbench.profiling.request import USUAL
from bac_workbench.settings.cache import Cache
from bac_workbench.settings.methods import named_cache
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_figures(experiment: Experiment, say: Callable[[str], None] = print) -> Path:
    """Measures, draws and writes everything; returns the folder.

    Raises:
        ConfigError: the budget is not possible, the folder holds other figures, or there are no such episodes.
        LockedError: another process writes to the folder.
    """
    settings = experiment.settings
    caches = possible_caches(experiment)
    folder, asked = output_folder(experiment), figure_settings(experiment)
    check_folder(folder, asked, settings.overwrite)
    with locked(folder, f"figures of {settings.task.name}"):
        check_folder(folder, asked, settings.overwrite)  # another process may have finished just now
        states = states_of(experiment)  # first: a demonstration may not be there
        profile, _ = profile_for(experiment, say, USUAL)
        schedules = {name: schedule_for(experiment.with_cache(cache), say, USUAL) for name, cache in caches.items()}
        measured = measure(experiment, states, profile, schedules)
        drawn = drawn_of(experiment, caches, measured)
        remove_others(folder, settings.metrics)
        write_json(folder / DESCRIPTION, described(experiment, asked, measured, drawn))
        save_numbers(folder, arrays_of(measured, drawn))
        for line in draw(folder, settings.mark, measured, drawn):
            say(line)
    for line in summary(measured, drawn):
        say(line)
    say(f"numbers: {folder / DESCRIPTION}, {folder / 'figures.npz'}")
    return folder


def possible_caches(experiment: Experiment) -> dict[str, Cache]:
    """The caches to draw and to mark, by method.

    Raises:
        ConfigError: the sampler has too few steps for them, or to compare any.
    """
    settings, steps = experiment.settings, experiment.steps
    if steps < 2:
        raise ConfigError(f"{experiment.sampler_name} takes one step, and figures compare steps: use another sampler=")
    if settings.budget > steps:
        raise ConfigError(f"budget={settings.budget}: use 1 to {steps}, the sampler's number of steps")
    methods = dict.fromkeys([*settings.caches, *([] if settings.mark is None else [settings.mark])])
    caches = {method: named_cache(method, budget=settings.budget) for method in methods}
    for cache in caches.values():
        cache.check(experiment.blocks, steps)
    return caches


def draw(folder: Path, mark: str | None, measured: Measured, drawn: dict[str, Drawn]) -> Iterator[str]:
    """Draws all pictures in every format; yields a line for each that is written."""
    metrics, matrices = list(measured.distances), measured.profile.matrices
    for metric in metrics:
        marked = None if mark is None else measured.schedules[mark]
        _save(draw_similarity(matrices[metric], metric, marked, own_scale=True), folder, f"similarity_{metric}")
        yield f"similarity of all pairs of steps: {_names(folder, f'similarity_{metric}')}"
    _save(draw_changes({metric: matrices[metric] for metric in metrics}), folder, "similarity_change")
    yield f"similarity of successive steps: {_names(folder, 'similarity_change')}"
    for metric, apart in measured.distances.items():
        one, other = (episode[metric] for episode in measured.episodes)
        _save(draw_homogeneity(metric, one, other, measured.states.names, apart), folder, f"homogeneity_{metric}")
        yield f"similarity in two episodes: {_names(folder, f'homogeneity_{metric}')}"
    _save(draw_errors(measured.errors, drawn), folder, "error_surge")
    yield f"errors under caching: {_names(folder, 'error_surge')}"


def _save(figure: Figure, folder: Path, stem: str) -> None:
    save(figure, *(folder / f"{stem}.{ending}" for ending in FORMATS))


def _names(folder: Path, stem: str) -> str:
    return f"{folder / stem}.{{{','.join(FORMATS)}}}"
