"""The schedule of a cache: read from the assets, or built from a profile that is measured if need be."""

from __future__ import annotations

from pathlib import Path

from bac.schedule import Schedule, ScheduleError
from bac_workbench.caching.sensitivity import sacs_schedule
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.identity import of_schedule, read_info, same_origin
from bac_workbench.profiling.profiles import Say, profile_for
from bac_workbench.profiling.request import USUAL, ProfileSettings
from bac_workbench.settings.caches import Cache
from bac_workbench.settings.sacs import Sacs
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.lock import locked


def schedule_for(experiment: Experiment, say: Say = print, usual: ProfileSettings = USUAL) -> Schedule | None:
    """The schedule of the experiment's cache with its sampler; None for the full policy.

    Args:
        say: is told what is read, measured and written.
        usual: how to measure what the settings leave open.

    Raises:
        ConfigError, ScheduleError: the cache asks for something impossible, or a stored schedule is not what its name
            says.
    """
    cache, blocks, steps = experiment.cache, experiment.blocks, experiment.steps
    cache.check(blocks, steps)
    if isinstance(cache, Sacs):
        return sacs_schedule(experiment, say, usual)
    if not cache.needs_profile:
        return cache.schedule(blocks, steps)
    assets = Assets.of(experiment)
    if (path := stored_schedule(assets, cache.label)) is not None:
        say(f"schedule: {path}")
        return load_checked(path, cache, experiment)
    profile, folder = profile_for(experiment, say, usual)
    schedule = cache.schedule(blocks, steps, profile)
    target = assets.writable(profile.info)
    path = target / "schedules" / f"{cache.label}.json"
    with locked(target, f"writing {path.name} of {experiment.settings.task.name}"):
        if path.exists():  # written by another process meanwhile, or not what its name says
            return load_checked(path, cache, experiment)
        schedule.save(path)
    say(f"schedule: {path} (built from {folder / 'profile.npz'})")
    return schedule


def stored_schedule(assets: Assets, label: str) -> Path | None:
    """Where a schedule of that name is which was made for this checkpoint and sampler, from a profile as asked for.

    Raises:
        ScheduleError: it lies beside such a profile but was not made from it.
    """
    for folder in assets.folders():
        path, info = folder / "schedules" / f"{label}.json", read_info(folder)
        if not path.exists() or (info is not None and not assets.is_mine(info)):
            continue
        origin = of_schedule(Schedule.load(path))
        if info is None and assets.is_mine(origin) or info is not None and same_origin(origin, info):
            return path
        if info is not None:
            differs = assets.identity.differences(origin) + [
                f"{name} {getattr(origin, name)} there, {getattr(info, name)} in {folder / 'profile.json'}"
                for name in ("observations", "noise_seeds", "source")
                if getattr(origin, name) != getattr(info, name)
            ]
            raise ScheduleError(
                f"{path} was not made from the profile beside it ({'; '.join(differs)}). It is left as it is: "
                "move it away, after which it is made anew, or use another assets_dir="
            )
    return None


def load_checked(path: Path, cache: Cache, experiment: Experiment) -> Schedule:
    """The schedule in `path`, if it is of this model and sampler and what the cache says.

    Raises:
        ScheduleError: it is not, whatever its name.
    """
    schedule = Schedule.load(path)
    schedule.check_fits(experiment.blocks, experiment.steps, experiment.loaded.hash)
    if differs := cache.differences(schedule):
        raise ScheduleError(
            f"{path} is not what its name says ({'; '.join(differs[:4])}). It is left as it is: move it away, "
            "after which it is made anew, or use another assets_dir="
        )
    return schedule
