"""Where profiles and schedules are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bac.profile_matrices import ProfileInfo
from bac.schedule import Schedule
from bac_workbench.locations import roots
from bac_workbench.profiling.identity import ProfileIdentity, of_schedule, other_settings, read_info, same_origin
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.profiling.sensitivity_identity import costs_in
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError


class Assets:
    """Where profile and schedules of one checkpoint with one sampler are looked for, and where they are written.

    `<assets_dir>/<task>` (`<assets_dir>/<task>/<sampler>` for another than the checkpoint's own) belongs to whatever
    was profiled there first. Every further checkpoint gets a folder below it, named by its hash, and a profile with
    other settings one named by them: nothing is ever replaced. Relative folders are read in the working directory and
    then in this project; they are written in the working directory.

    Args:
        assets_dir: the root of all tasks.
        base: the folder below it, `<task>` or `<task>/<sampler>`.
        identity: the checkpoint and sampler.
        request: what a profile has to be measured with.
    """

    def __init__(self, assets_dir: Path, base: Path, identity: ProfileIdentity, request: ProfileSettings):
        self.identity, self.request = identity, request
        self.roots = roots(assets_dir)
        short = identity.checkpoint_hash[:12]
        self.relative = [base, base / short, base / f"{short}-{identity.weights}"]
        self.relative += [folder / request.folder for folder in self.relative]

    @classmethod
    def of(cls, experiment: Experiment) -> Assets:
        settings = experiment.settings
        base = Path(settings.task.name)
        if experiment.sampler_name != experiment.own_sampler_name:
            base = base / experiment.sampler_name
        request = ProfileSettings.asked(experiment)
        return cls(Path(settings.assets_dir), base, ProfileIdentity.of(experiment), request)

    def folders(self) -> Iterator[Path]:
        """All of them, the first to look in first."""
        for relative in self.relative:
            for root in self.roots:
                yield root / relative

    def is_mine(self, info: ProfileInfo) -> bool:
        """Whether a profile is of this checkpoint and sampler, and measured as asked for."""
        return not self.identity.differences(info) and not other_settings(info, self.request)

    def is_writable(self, folder: Path) -> bool:
        """Whether it lies below the root that is written to."""
        return folder in [self.roots[0] / relative for relative in self.relative]

    def profile_folder(self) -> Path | None:
        """Where a profile is that is of this checkpoint and sampler, and measured as asked for."""
        for folder in self.folders():
            info = read_info(folder)
            if info is not None and self.is_mine(info):
                return folder
        return None

    def writable(self, of: ProfileInfo | None = None) -> Path:
        """The first folder that holds nothing of another profile.

        Args:
            of: the profile that what will be written follows from; None: a new one will be.

        Raises:
            ConfigError: there is none.
        """
        for relative in self.relative:
            folder = self.roots[0] / relative
            if self._is_free(folder, of):
                return folder
            info = read_info(folder)  # the own folder, but for the settings?
            own = info is not None and not self.identity.differences(info)
            if own and self._is_free(folder / self.request.folder, of):
                return folder / self.request.folder
        raise ConfigError(
            f"no folder below {self.roots[0] / self.relative[0]} is free for the profile of checkpoint "
            f"{self.identity.checkpoint_hash[:12]}: choose another assets_dir="
        )

    def _is_free(self, folder: Path, of: ProfileInfo | None) -> bool:
        info, schedules, costs = self._stored(folder)
        of_profiles = schedules if info is None else [info]
        mine = all(of is not None and same_origin(other, of) for other in of_profiles)
        return mine and not any(self.identity.differences(other) for other in costs)

    @staticmethod
    def _stored(folder: Path) -> tuple[ProfileInfo | None, list[ProfileInfo], list[ProfileInfo]]:
        """What lies in a folder is of: its profile, the schedules made from one, and holding costs and theirs."""
        schedules = [Schedule.load(path) for path in (folder / "schedules").glob("*.json")]
        from_costs = [of_schedule(item) for item in schedules if item.provenance.method == "sacs"]
        from_profile = [of_schedule(item) for item in schedules if item.provenance.method != "sacs"]
        return read_info(folder), from_profile, [*(info.origin for info in costs_in(folder)), *from_costs]

    def free_for(self, *names: str) -> Path:
        """The first folder that holds nothing of another checkpoint or sampler, and no file of these names.

        Raises:
            ConfigError: there is none.
        """
        for relative in self.relative:
            folder = self.roots[0] / relative
            info, schedules, costs = self._stored(folder)
            stored = [*([] if info is None else [info]), *schedules, *costs]
            others = any(self.identity.differences(other) for other in stored)
            if not others and not any((folder / name).exists() for name in names):
                return folder
        raise ConfigError(
            f"no folder below {self.roots[0] / self.relative[0]} is free for {', '.join(names)} of checkpoint "
            f"{self.identity.checkpoint_hash[:12]}: choose another assets_dir="
        )

    def replaceable(self) -> Path:
        """The folder that holds a profile of this checkpoint and sampler, whatever its settings; else `writable`."""
        for relative in self.relative:
            info = read_info(self.roots[0] / relative)
            if info is not None and not self.identity.differences(info):
                return self.roots[0] / relative
        return self.writable()

    def measured_otherwise(self) -> list[str]:
        """Profiles of this checkpoint and sampler that were measured in another way, in words."""
        lines = []
        for folder in self.folders():
            info = read_info(folder)
            if info is None or self.identity.differences(info):
                continue
            if differs := other_settings(info, self.request):
                lines.append(
                    f"{folder / 'profile.npz'} was measured otherwise ({'; '.join(differs)}) and stays as it is: "
                    + (
                        "observations= names others"
                        if self.request.is_recording
                        else "to use it, leave these profile.* settings out"
                    )
                )
        return lines
