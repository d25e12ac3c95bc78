"""The cells of the tables: a method on a policy with one noise seed, where its results are, and what is there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bac.errors import UserError
from bac.schedule import Schedule
from bac_workbench.caching.schedules import stored_schedule
from bac_workbench.evaluation.evaluate import read_stored
from bac_workbench.evaluation.folder import (
    EPISODES,
    MAY_CHANGE,
    RESULTS,
    SETTINGS,
    default_output_dir,
    evaluation_settings,
    stored_settings,
)
from bac_workbench.profiling.assets import Assets
from bac_workbench.reproducing.published import BUDGET, TABLE_2
from bac_workbench.reproducing.sources import Source
from bac_workbench.settings.caches import CACHES
from bac_workbench.settings.methods import parse_method
from bac_workbench.settings.reproducing import Reproduce
from bac_workbench.settings.sacs import Sacs
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import remove_leftover_folders, temporary_name
from diffusion_policy.env_runner.episodes import load_episodes

MISSING, BEGUN, THERE, EARLIER, ANOTHER = "missing", "begun", "there", "there, in results/", "another one is there"
EVALUATIONS = "results"  # below the output folder; so are the names of tasks, as `bac eval` names its own


@dataclass(frozen=True)
class Cell:
    """One evaluation.

    Attributes:
        method: as the benchmark names it, such as bac_s10.
        label: the same with the sampler that it turned out to have, bac_s10@ddpm100: rows and times have this key.
        folder: of its results.
        overrides: what `bac eval` is told, without the settings for every cell.
        state: one of the words above.
        done: episodes that are finished.
        n_test: test episodes that it will have.
    """

    source: Source
    method: str
    label: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]
    state: str
    done: int
    n_test: int


def methods_of(settings: Reproduce) -> list[str]:
    """The rows of the tables, as the benchmark names methods."""
    rows = ["full"]
    if 1 in settings.tables:
        rows += [f"{cache}_s{budget}" for cache in ("uniform", "bac") for budget in sorted({*settings.budgets, BUDGET})]
    if 2 in settings.tables:
        rows += list(TABLE_2)
    return list(dict.fromkeys([*rows, *settings.further]))


def overrides_of(method: str) -> list[str]:
    """What `bac eval` is told for a method: 'bac_s7@ddim16' -> cache=bac cache.budget=7 sampler.type=ddim ..."""
    found = parse_method(method)
    tags = method.partition("@")[0].removeprefix(found.cache.method).removeprefix("_")
    given = (CACHES[found.cache.method].settings_of(tags) or {}) if tags else {}
    chosen = [f"cache={found.cache.method}", *(f"cache.{name}={value}" for name, value in given.items())]
    return chosen + [f"sampler.{name}={value}".replace(" ", "") for name, value in found.sampler.items()]


def plan(
    source: Source, base: Experiment, settings: Reproduce, output: Path, say: Callable[[str], None]
) -> Iterator[Cell]:
    """The cells of one policy, method by method.

    Args:
        base: the full policy with the settings for every cell.
        output: the folder of the tables.

    Raises:
        ConfigError: a method is not possible for this policy.
    """
    seen: set[Path] = set()
    for method in methods_of(settings):
        parsed = parse_method(method)
        try:
            variant = base.with_sampler(parsed.sampler).with_cache(parsed.cache)
        except (ConfigError, UserError) as error:
            if method != "tuned":
                raise
            say(f"{source.words}: without the row of the tuned setting: {error}")
            continue
        variant.cache.check(variant.blocks, variant.steps)
        for seed in settings.seeds:
            experiment = dataclasses.replace(variant, settings=variant.settings.replace(seed=seed))
            earlier = default_output_dir(experiment)
            folder = output / earlier
            if folder in seen:  # tuned can be one of the others
                continue
            seen.add(folder)
            yield cell_of(source, method, experiment, folder, earlier, settings)


def cell_of(
    source: Source, method: str, experiment: Experiment, folder: Path, earlier: Path, settings: Reproduce
) -> Cell:
    seed, label = experiment.settings.seed, f"{experiment.cache.label}@{experiment.sampler_name}"
    state, done, n_test = standing(folder, experiment, settings.n_test)
    if state == MISSING and folder.resolve() != earlier.resolve():
        there = standing(earlier, experiment, settings.n_test, strictly=True)
        if there[0] == THERE:
            state, done, n_test = EARLIER, there[1], there[2]
    overrides = [*source.settings, *overrides_of(method), f"seed={seed}", f"runtime={settings.runtime}"]
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    overrides += [f"eval.n_test={n_test}", "benchmark.n_chunks=0", f'output_dir="{quoted}"']
    return Cell(source, method, label, seed, folder, tuple(overrides), state, done, n_test)


def standing(folder: Path, experiment: Experiment, n_test: int, strictly: bool = False) -> tuple[str, int, int]:
    """What is in a folder: its state, finished episodes, and how many the evaluation has to have at least.

    Args:
        strictly: an evaluation counts only if its schedule is known to be what would run.
    """
    if not (folder / SETTINGS).exists():
        return MISSING, 0, n_test
    schedule = known_schedule(experiment)
    if schedule is None and strictly:
        return ANOTHER, 0, n_test
    fallback = Schedule.full(experiment.blocks, experiment.steps)
    expected = evaluation_settings(experiment, schedule or fallback, experiment.task.episodes())
    skipped = {*MAY_CHANGE, *(() if schedule else ("schedule_digest",))}
    try:
        stored = stored_settings(folder / SETTINGS)
        done = load_episodes(folder / EPISODES)
    except (ConfigError, ValueError):
        return ANOTHER, 0, n_test
    if any(stored.get(key) != value for key, value in expected.items() if key not in skipped):
        return ANOTHER, len(done), n_test
    needed = max([n_test, *(result.index + 1 for result in done)])
    results = read_stored(folder / RESULTS) or {}
    complete = len(results.get("episodes", ())) >= n_test and len(done) >= n_test
    return (THERE if complete else BEGUN), len(done), needed


def known_schedule(experiment: Experiment) -> Schedule | None:
    """The schedule that would run, as far as that can be told without measuring anything."""
    cache = experiment.cache
    if isinstance(cache, Sacs):
        return None
    if not cache.needs_profile:
        made = cache.schedule(experiment.blocks, experiment.steps)
        return Schedule.full(experiment.blocks, experiment.steps) if made is None else made
    with contextlib.suppress(UserError):  # whoever runs the cell is told
        path = stored_schedule(Assets.of(experiment), cache.label)
        return None if path is None else Schedule.load(path)
    return None


def adopt(cells: Sequence[Cell], output: Path) -> int:
    """Copies what `bac eval` has stored in results/ already; returns how many evaluations that were."""
    earlier = [cell for cell in cells if cell.state == EARLIER]
    for cell in earlier:
        cell.folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftover_folders(cell.folder)
        temporary = temporary_name(cell.folder)
        shutil.copytree(cell.folder.relative_to(output), temporary)
        os.replace(temporary, cell.folder)
    return len(earlier)
