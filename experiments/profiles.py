"""Profiles on disk: what one is of, whether it is what was asked for, where it is kept, measuring it once."""
from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress

from bac.profiling import Profile, ProfileInfo, profile_features
from bac.schedule import Schedule
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked
from experiments.checkpoints import ROOT
from experiments.observations import recorded_observations, sampler_inputs, visited_observations
from experiments.pictures import draw_profile, missing_pictures
from experiments.setup import Experiment, has_simulator

SOURCES = ("rollouts", "dataset")
#: what a profile is measured with where nothing is asked for: when an evaluation needs one, and when it is made for its own sake
USUAL = {"n_episodes": 4, "seed_start": 20000, "n_observations": 32, "noise_seeds": (0, 1)}
THOROUGH = {**USUAL, "n_episodes": 8, "n_observations": 64}
ALL_SEEN = ", which is all there were"
Say = Callable[[str], None]


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile is measured with; None: not asked for, a stored profile has to be as careful as the usual at least."""

    source: str | None = None
    n_episodes: int | None = None
    seed_start: int | None = None
    n_observations: int | None = None
    noise_seeds: tuple[int, ...] | None = None
    batch_size: int = 4     # decides the memory it takes, not what is measured

    @classmethod
    def of(cls, section: DictConfig) -> ProfileSettings:
        """The `profile` section of a config.

        Raises:
            ConfigError: a value that no profile can be measured with.
        """
        values = {field.name: section.get(field.name) for field in fields(cls)}
        if values["source"] not in (None, "auto", *SOURCES):
            raise ConfigError(f"profile.source={values['source']} is unknown: use auto, {', '.join(SOURCES)}")
        values["source"] = None if values["source"] == "auto" else values["source"]
        for name, least in (("n_episodes", 1), ("seed_start", 0), ("n_observations", 1), ("batch_size", 1)):
            if name == "batch_size" and values[name] is None:
                values[name] = cls.batch_size
            elif values[name] is not None and (type(values[name]) is not int or values[name] < least):
                raise ConfigError(f"profile.{name}={values[name]} is not possible: use a whole number of at least {least}")
        seeds = values["noise_seeds"]
        if seeds is not None:
            listed = list(seeds) if not isinstance(seeds, (str, int, float)) else []
            if not listed or any(type(seed) is not int or seed < 0 for seed in listed) or len(set(listed)) < len(listed):
                raise ConfigError(f"profile.noise_seeds={seeds} is not possible: use at least one whole number, each once, such as [0,1]")
            values["noise_seeds"] = tuple(listed)
        if values["source"] == "dataset" and (values["n_episodes"], values["seed_start"]) != (None, None):
            raise ConfigError("profile.n_episodes and profile.seed_start are of rollouts: leave them out with profile.source=dataset")
        return cls(**values)

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked for, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch_size"}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def folder(self) -> str:
        """A folder for a profile measured so: episodes1-observations2-noise0."""
        tags = {"source": "", "n_episodes": "episodes", "seed_start": "from", "n_observations": "observations", "noise_seeds": "noise"}
        parts = []
        for name, value in self.asked.items():
            text = "_".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(tags[name] + (text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:12]))
        return "-".join(parts) or "usual"


# ---- what a stored profile is ----
def stored_settings(info: ProfileInfo) -> dict[str, Any]:
    """What a profile was measured with, as far as it says; the one place that reads it from a `ProfileInfo`."""
    found: dict[str, Any] = {"n_observations": info.observations, "noise_seeds": tuple(info.noise_seeds)}
    if seeds := re.match(r"rollouts of the full policy from seeds (\d+)\.\.(\d+)", info.source):
        first, last = map(int, seeds.groups())
        found |= {"source": "rollouts", "seed_start": first, "n_episodes": last - first + 1}
    elif info.source.startswith("windows of the task's data set"):
        found["source"] = "dataset"
    return found


def other_identity(info: ProfileInfo, experiment: Experiment) -> list[str]:
    """Where a profile is of something else than this checkpoint with this sampler."""
    now = {"checkpoint_hash": experiment.loaded.hash, "weights": experiment.loaded.weights, "sampler": experiment.sampler,
           "steps": experiment.base.num_inference_steps}
    return [f"{name} {getattr(info, name)} there, {value} now" for name, value in now.items() if getattr(info, name) != value]


def other_settings(info: ProfileInfo, ask: ProfileSettings) -> list[str]:
    """Where a profile was measured in another way than asked for."""
    found = stored_settings(info)
    if info.source.endswith(ALL_SEEN) and (ask.n_observations or 0) >= info.observations:
        found["n_observations"] = ask.n_observations    # so many were not to be had
    differs = [f"{name} {found.get(name)} there, {value} asked for" for name, value in ask.asked.items() if found.get(name) != value]
    # More observations and seeds are a better estimate of the same averages; fewer are a worse one, and not what is meant by default.
    if ask.n_observations is None and info.observations < USUAL["n_observations"] and not info.source.endswith(ALL_SEEN):
        differs.append(f"n_observations {info.observations} there, usually {USUAL['n_observations']} at least")
    if ask.n_episodes is None and found.get("n_episodes", USUAL["n_episodes"]) < USUAL["n_episodes"]:
        differs.append(f"n_episodes {found['n_episodes']} there, usually {USUAL['n_episodes']} at least")
    if ask.noise_seeds is None and len(info.noise_seeds) < len(USUAL["noise_seeds"]):
        differs.append(f"noise_seeds {list(info.noise_seeds)} there, usually {len(USUAL['noise_seeds'])} at least")
    return differs


def read_info(folder: Path) -> ProfileInfo | None:
    """What the profile in `folder` is of, None if there is none.

    Raises:
        ConfigError: it is damaged or incomplete; the message says what to do.
    """
    stored, arrays = folder / "profile.json", folder / "profile.npz"
    if not stored.exists():
        return None
    if not arrays.exists():
        raise ConfigError(f"{stored} is there but not {arrays}: restore it, or remove profile.json, after which it is measured anew")
    try:
        info = Profile.read_info(folder)
        if info is None or not isinstance(info.source, str) or not isinstance(info.observations, int):
            raise TypeError("it does not say what was profiled")
        return info
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{stored} is damaged ({error}): restore it, or remove it, after which the profile is measured anew") from error


def load_profile(folder: Path) -> Profile:
    """Raises ConfigError, which says what to do, if it is damaged."""
    try:
        return Profile.load(folder)
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise ConfigError(f"{folder / 'profile.npz'} is damaged ({type(error).__name__}: {error}): restore it, or remove profile.json beside it, "
                          "after which the profile is measured anew") from error


# ---- where it is kept ----
class Assets:
    """Where profile and schedules of this checkpoint with this sampler are looked for, and where they are written.

    `<assets_dir>/<task>` (`<assets_dir>/<task>/<sampler>` for another than the checkpoint's own) belongs to whatever was
    profiled there first. Every further checkpoint gets a folder below it, named by its hash, and a profile with other
    settings one named by them: nothing is ever replaced. Relative folders are read in the working directory and then in
    this project; they are written in the working directory.
    """

    def __init__(self, experiment: Experiment):
        self.experiment, self.ask = experiment, ProfileSettings.of(experiment.cfg.profile)
        given = Path(str(experiment.cfg.assets_dir)).expanduser()
        self.roots = [given] if given.resolve() == (ROOT / given).resolve() else [given, ROOT / given]
        base = Path(experiment.cfg.task.name)
        if experiment.sampler != experiment.own_sampler:
            base = base / experiment.sampler
        short = experiment.loaded.hash[:12]
        self.relative = [base, base / short, base / f"{short}-{experiment.loaded.weights}"]
        self.relative += [folder / self.ask.folder for folder in self.relative]

    def folders(self) -> Iterator[Path]:
        for relative in self.relative:
            for root in self.roots:
                yield root / relative

    def is_mine(self, info: ProfileInfo) -> bool:
        return not other_identity(info, self.experiment) and not other_settings(info, self.ask)

    def profile_folder(self) -> Path | None:
        """Where a profile is that is of this checkpoint and sampler, and measured as asked for."""
        for folder in self.folders():
            info = read_info(folder)
            if info is not None and self.is_mine(info):
                return folder
        return None

    def writable(self, of: ProfileInfo | None = None) -> Path:
        """The first folder for what follows from the profile `of`, or for a new profile if None; it holds nothing of another."""
        for relative in self.relative:
            folder = self.roots[0] / relative
            info = read_info(folder)
            schedules = [] if info is not None else [of_schedule(Schedule.load(path)) for path in (folder / "schedules").glob("*.json")]
            if all(of is not None and same_origin(other, of) for other in ([] if info is None else [info]) + schedules):
                return folder
        raise ConfigError(f"no folder below {self.roots[0] / self.relative[0]} is free for the profile of checkpoint "
                          f"{self.experiment.loaded.hash[:12]}: choose another assets_dir=")

    def replaceable(self) -> Path:
        """The folder that holds a profile of this checkpoint and sampler, whatever its settings; else `writable`."""
        for relative in self.relative:
            info = read_info(self.roots[0] / relative)
            if info is not None and not other_identity(info, self.experiment):
                return self.roots[0] / relative
        return self.writable()

    def measured_otherwise(self) -> list[str]:
        """Profiles of this checkpoint and sampler that were measured in another way, in words."""
        said = []
        for folder in self.folders():
            info = read_info(folder)
            if info is not None and not other_identity(info, self.experiment) and (differs := other_settings(info, self.ask)):
                said.append(f"{folder / 'profile.npz'} was measured otherwise ({'; '.join(differs)}) and stays as it is: "
                            "to use it, leave these profile.* settings out")
        return said


def of_schedule(schedule: Schedule) -> ProfileInfo:
    """The profile that a schedule says it was made from."""
    origin = schedule.provenance
    return ProfileInfo(origin.checkpoint_hash or "", origin.weights or "", origin.sampler or "", schedule.steps, origin.observations or 0,
                       origin.seeds, str(origin.extras.get("observations_from", "")))


def same_origin(one: ProfileInfo, other: ProfileInfo) -> bool:
    names = ("checkpoint_hash", "weights", "sampler", "steps", "observations", "source")
    return all(getattr(one, name) == getattr(other, name) for name in names) and tuple(one.noise_seeds) == tuple(other.noise_seeds)


# ---- measuring ----
def profile_for(experiment: Experiment, say: Say = print, usual: dict[str, Any] = USUAL) -> tuple[Profile, Path]:
    """The stored profile that fits, or a new one, measured once; and its folder.

    Raises:
        LockedError: another process is measuring it.
    """
    assets = Assets(experiment)
    folder = assets.profile_folder()
    if folder is None:
        for line in assets.measured_otherwise():
            say(line)
        folder = assets.writable()
        with locked(folder, f"profiling {experiment.cfg.task.name}"):
            if assets.profile_folder() is None:     # another process may have finished just now
                say(f"no profile fits checkpoint {experiment.loaded.hash[:12]} with {experiment.sampler}: profiling now, once, into {folder}")
                profile = measure(experiment, say, usual)
                profile.save(folder)
                draw_profile(profile, folder)
        folder = assets.profile_folder() or folder
    profile = load_profile(folder)
    say(f"profile: {folder / 'profile.npz'} ({profile.info.observations} observations, noise seeds {list(profile.info.noise_seeds)}, "
        f"{profile.info.source})")
    if missing_pictures(profile, folder) and folder in [assets.roots[0] / relative for relative in assets.relative]:
        with locked(folder, f"drawing the profile of {experiment.cfg.task.name}"):
            draw_profile(profile, folder)
    return profile, folder


def replace_profile(experiment: Experiment, say: Say = print, usual: dict[str, Any] = THOROUGH) -> tuple[Profile, Path]:
    """Measures anew; the profile of this checkpoint and sampler that is there goes, with its schedules and pictures."""
    folder = Assets(experiment).replaceable()
    with locked(folder, f"profiling {experiment.cfg.task.name} anew"):
        profile = measure(experiment, say, usual)
        # What describes or follows from the other profile goes first: a kill leaves no mixture.
        for stale in [folder / "profile.json", *(folder / "schedules").glob("*.json"), *(folder / "figures").glob("*.png")]:
            stale.unlink(missing_ok=True)
        profile.save(folder)
        draw_profile(profile, folder)
    return profile, folder


def measure(experiment: Experiment, say: Say, usual: dict[str, Any]) -> Profile:
    """Profiles the policy; what `cfg.profile` leaves open is as in `usual`."""
    ask = ProfileSettings.of(experiment.cfg.profile)
    values = {name: getattr(ask, name) if getattr(ask, name) is not None else value for name, value in usual.items()}
    source = ask.source or ("rollouts" if has_simulator(experiment.cfg) else "dataset")
    if source == "dataset" and (ask.n_episodes, ask.seed_start) != (None, None):
        raise ConfigError(f"task {experiment.cfg.task.name} has no simulator and is profiled on its data set: "
                          "leave profile.n_episodes and profile.seed_start out")
    wanted, seeds = values["n_observations"], values["noise_seeds"]
    with Progress(transient=True) as bar:
        if source == "rollouts":
            first, n = values["seed_start"], values["n_episodes"]
            observations, seen = visited_observations(experiment, n, first, wanted, bar)
            origin = f"rollouts of the full policy from seeds {first}..{first + n - 1}"
        else:
            say("profiling on observations of the task's data set")
            observations, seen = recorded_observations(experiment, wanted)
            origin = f"windows of the task's data set, {seen} in all"
        cond, condition, given = sampler_inputs(experiment.policy, observations)
        job = bar.add_task("profiling block features", total=len(condition) * len(seeds))
        matrices = profile_features(experiment.base, cond, condition, given, seeds, ask.batch_size,
                                    lambda done, total: bar.update(job, completed=done))
    info = ProfileInfo(experiment.loaded.hash, experiment.loaded.weights, experiment.sampler, experiment.base.num_inference_steps,
                       len(condition), seeds, origin + (ALL_SEEN if seen < wanted else ""))
    return Profile(info, matrices)
