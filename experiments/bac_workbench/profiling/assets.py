"""Where profiles and schedules are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bac.profiling import ProfileInfo
from bac.schedule import Schedule
from bac_workbench.locations import roots
from bac_workbench.profiling.profile_settings import (
    ProfileSettings,
    of_schedule,
    other_identity,
    other_settings,
    read_info,
    same_origin,
)
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError


class Assets:
    """Where profile and schedules of this checkpoint with this sampler are looked for, and where they are written.

    `<assets_dir>/<task>` (`<assets_dir>/<task>/<sampler>` for another than the checkpoint's own) belongs to whatever was
    profiled there first. Every further checkpoint gets a folder below it, named by its hash, and a profile with other
    settings one named by them: nothing is ever replaced. Relative folders are read in the working directory and then in
    this project; they are written in the working directory.
    """

    def __init__(self, experiment: Experiment):
        self.experiment, self.ask = experiment, ProfileSettings.of(experiment.cfg.profile)
        self.roots = roots(str(experiment.cfg.assets_dir))
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
            if self._is_free(folder, of):
                return folder
            info = read_info(folder)  # the own folder, but for the settings?
            if (
                info is not None
                and not other_identity(info, self.experiment)
                and self._is_free(folder / self.ask.folder, of)
            ):
                return folder / self.ask.folder
        raise ConfigError(
            f"no folder below {self.roots[0] / self.relative[0]} is free for the profile of checkpoint "
            f"{self.experiment.loaded.hash[:12]}: choose another assets_dir="
        )

    @staticmethod
    def _is_free(folder: Path, of: ProfileInfo | None) -> bool:
        info = read_info(folder)
        stored = (
            [info]
            if info is not None
            else [of_schedule(Schedule.load(path)) for path in (folder / "schedules").glob("*.json")]
        )
        return all(of is not None and same_origin(other, of) for other in stored)

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
            if (
                info is not None
                and not other_identity(info, self.experiment)
                and (differs := other_settings(info, self.ask))
            ):
                said.append(
                    f"{folder / 'profile.npz'} was measured otherwise ({'; '.join(differs)}) and stays as it is: "
                    "to use it, leave these profile.* settings out"
                )
        return said
