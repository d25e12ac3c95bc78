"""What lies behind the numbers of a checkpoint: its profile, its schedules, and errors of its blocks under caching."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bac.acs import blockwise_acs
from bac.errors import UserError
from bac.profile_matrices import Profile
from bac.schedule import Schedule
from bac_workbench.figures.files import DESCRIPTION, NUMBERS
from bac_workbench.figures.numbers import relative_errors
from bac_workbench.locations import roots
from bac_workbench.reporting.names import budget, family
from bac_workbench.reporting.stored import read_json
from bac_workbench.reporting.studies import Study
from diffusion_policy.common.config import ConfigError


@dataclass(frozen=True)
class Grid:
    """A schedule, and what it was before BUA.

    Attributes:
        name: of the method, such as bac_s10.
        base: the same without BUA's additions; None for other methods, and where its profile is not at hand.
        source: the file.
    """

    name: str
    schedule: Schedule
    base: Schedule | None
    source: str

    @property
    def tags(self) -> dict[str, str]:
        return {"method": family(self.name, ""), "budget": budget(self.name)}

    @property
    def added(self) -> np.ndarray:
        """bool [steps, blocks]: the updates that BUA added."""
        updates = self.schedule.updates
        return np.zeros_like(updates) if self.base is None else updates & ~self.base.updates


@dataclass(frozen=True)
class SurgeOf:
    """Errors of block outputs under one cache.

    Attributes:
        label: the cache with its budget.
        relative: [K, blocks], as shares of each block's mean output.
        facts: `block_updates`, `block_updates_full`, `gflop`, `relative_error`, `action_error`.
    """

    label: str
    family: str
    budget: str
    relative: np.ndarray
    facts: dict[str, Any]

    @property
    def tags(self) -> dict[str, str]:
        return {"method": self.family, "budget": self.budget}


@dataclass(frozen=True)
class Surge:
    """What `bac figures` measured.

    Attributes:
        errors: method -> [K, blocks], absolute; `sizes` the mean outputs that they are shares of.
    """

    blocks: tuple[str, ...]
    sizes: np.ndarray
    errors: dict[str, np.ndarray]
    caches: tuple[SurgeOf, ...]
    source: str


@dataclass(frozen=True)
class Evidence:
    """Of one checkpoint."""

    key: str
    task: str
    checkpoint_hash: str
    profile: Profile | None
    grids: tuple[Grid, ...]
    surge: Surge | None
    has_evaluations: bool

    @property
    def marked(self) -> Grid | None:
        """The schedule whose chosen steps are marked in the similarity maps: BAC's if there is one."""
        fitting = [grid for grid in self.grids if self.profile and grid.schedule.blocks == self.profile.blocks]
        order = {"bac": 0, "blockwise_acs": 1}
        return min(fitting, key=lambda grid: order.get(grid.tags["method"], 2), default=None)


def evidence_of(studies: Sequence[Study], folders: Sequence[Path], assets_dir: Path) -> list[Evidence]:
    """One for each task and checkpoint of the studies.

    Args:
        folders: where `bac figures` may have written, at any depth.

    Raises:
        ConfigError: a file is damaged.
    """
    found: dict[tuple[str, str], list[Study]] = {}
    for study in studies:
        for digest in dict.fromkeys(hashes(study)):
            found.setdefault((study.task, digest), []).append(study)
    surges = list(stored_surges(folders))
    return [
        make_evidence(task, digest, members, [surge for owner, surge in surges if owner == digest], assets_dir)
        for (task, digest), members in found.items()
    ]


def hashes(study: Study) -> list[str]:
    """The checkpoints of a study; several where it pools published trainings."""
    rows = [method.row for method in study.methods]
    return [digest for row in rows for digest in row.get("checkpoint_hashes", [study.facts["checkpoint_hash"]])]


def make_evidence(task: str, digest: str, studies: list[Study], surges: list[Surge], assets_dir: Path) -> Evidence:
    own = studies[0].own_sampler
    try:
        profile = profile_of(task, digest, studies[0].facts["weights"], own, assets_dir)
        paths = dict(run_schedules(studies, digest)) or dict(kept_schedules(task, assets_dir))
        loaded = [(name, Schedule.load(path), path) for path, name in paths.items()]
    except (UserError, OSError) as error:
        raise ConfigError(str(error)) from error
    grids: dict[str, Grid] = {}
    for name, schedule, path in loaded:
        about = schedule.provenance
        if about.checkpoint_hash in (digest, None) and about.sampler in (own, None):
            grids.setdefault(schedule.digest, Grid(name, schedule, before_repair(schedule, profile), str(path)))
    ordered = sorted(grids.values(), key=lambda grid: (grid.tags["method"] != "bac", grid.name))
    key = f"{task}-{digest[:12]}"
    return Evidence(
        key="".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in key),
        task=task,
        checkpoint_hash=digest,
        profile=profile,
        grids=tuple(ordered),
        surge=surges[0] if surges else None,
        has_evaluations=any(method.runs for study in studies for method in study.methods),
    )


def profile_of(task: str, digest: str, weights: str, sampler: str, assets_dir: Path) -> Profile | None:
    """The first stored profile of this checkpoint with its own sampler; None if there is none."""
    for root in roots(assets_dir):
        for path in sorted((root / task).rglob("profile.json"), key=lambda path: (len(path.parts), path)):
            info = Profile.read_info(path.parent)
            if info and (info.checkpoint_hash, info.weights, info.sampler) == (digest, weights, sampler):
                return Profile.load(path.parent)
    return None


def run_schedules(studies: Sequence[Study], digest: str) -> Iterator[tuple[Path, str]]:
    """The schedules that ran, with the names of their methods."""
    for study in studies:
        for method in study.methods:
            for run in method.runs:
                if (path := run / "schedule.json").exists() and method.own_sampler:
                    yield path, method.row["method"]


def kept_schedules(task: str, assets_dir: Path) -> Iterator[tuple[Path, str]]:
    """The schedules among a task's assets, for its checkpoint's own sampler."""
    seen = set()
    for root in roots(assets_dir):
        for path in sorted((root / task / "schedules").glob("*.json")):
            if path.name not in seen:
                seen.add(path.name)
                yield path, path.stem


def before_repair(schedule: Schedule, profile: Profile | None) -> Schedule | None:
    """The block-wise ACS schedule that BUA repaired; None for another method, or where `profile` does not give it."""
    about = schedule.provenance
    if about.method != "bac" or profile is None or about.metric not in profile.matrices:
        return None
    if about.budget is None or about.objective is None or schedule.blocks != profile.blocks:
        return None
    base = blockwise_acs(profile.matrices[about.metric], about.budget, about.metric, about.objective)
    return base if bool((schedule.updates >= base.updates).all()) else None


def stored_surges(folders: Sequence[Path]) -> Iterator[tuple[str, Surge]]:
    """(checkpoint hash, errors) of what `bac figures` wrote below `folders`."""
    for folder in folders:
        for path in sorted(folder.rglob(DESCRIPTION)):
            if (path.parent / NUMBERS).exists():
                yield read_surge(path)


def read_surge(path: Path) -> tuple[str, Surge]:
    """Raises ConfigError where figures.json or the numbers beside it are damaged."""
    described, numbers = read_json(path), path.with_name(NUMBERS)
    try:
        settings, caches = described["settings"], described["caches"]
        with np.load(numbers, allow_pickle=False) as arrays:
            blocks, sizes = tuple(map(str, arrays["blocks"])), arrays["sizes"]
            errors = {name: arrays[f"errors|{name}"] for name in settings["caches"]}
        labels = {name: next(label for label in caches if family(label, "") == name) for name in errors}
        drawn = tuple(
            SurgeOf(label, family(name, ""), budget(label), relative_errors(errors[name], sizes), caches[label])
            for name, label in labels.items()
        )
        return str(settings["checkpoint_hash"]), Surge(blocks, sizes, errors, drawn, str(path))
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} and {numbers.name} are damaged ({error!r}): run bac figures again") from error
