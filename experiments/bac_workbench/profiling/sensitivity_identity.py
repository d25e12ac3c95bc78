"""What stored holding costs are of, and whether that is what a cache with these settings asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bac.profile_source import Source
from bac.schedule import Schedule
from bac.sensitivity_files import SensitivityInfo, read_info
from bac_workbench.profiling.identity import ProfileIdentity, of_schedule
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.settings.sacs import Sacs
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError


@dataclass(frozen=True)
class Wanted:
    """The holding costs that an experiment asks for.

    Attributes:
        chunk: first executed token, and the one after the last.
        request: where the states come from, as far as the settings say.
        tag: for file names; tells another chunk than the checkpoint's own.
    """

    identity: ProfileIdentity
    cache: Sacs
    chunk: tuple[int, int]
    request: ProfileSettings
    tag: str

    @classmethod
    def of(cls, experiment: Experiment) -> Wanted:
        policy = experiment.policy
        return cls(
            identity=ProfileIdentity.of(experiment),
            cache=experiment.cache,
            chunk=(policy.chunk.start, policy.chunk.stop),
            request=ProfileSettings.asked(experiment),
            tag="" if policy.n_action_steps == experiment.own_chunk else f"-actions{policy.n_action_steps}",
        )

    @property
    def name(self) -> str:
        """Of the stored files, without their endings."""
        return "sensitivity" + self.cache.measured.replace("_", "-") + self.tag

    @property
    def schedule_name(self) -> str:
        return f"{self.cache.label}{self.tag}.json"

    def differences(self, info: SensitivityInfo) -> list[str]:
        """Where costs, or what a schedule says of its own, are not as wanted, in words."""
        origin, source = info.origin, Source.parse(info.origin.source)
        there = {
            "states": origin.observations,
            "draws": info.draws,
            "seed": list(origin.noise_seeds),
            "chunk": tuple(info.chunk),
            "source": source.kind,
            "n_episodes": source.settings.get("n_episodes"),
            "seed_start": source.settings.get("seed_start"),
        }
        states = origin.observations if source.all_seen and origin.observations < self.cache.n_states else None
        wanted = {
            "states": states or self.cache.n_states,
            "draws": self.cache.draws,
            "seed": [self.cache.seed],
            "chunk": self.chunk,
        }
        asked = {name: value for name, value in self.request.requested.items() if name in there}
        return self.identity.differences(origin) + [
            f"{name} {there[name]} instead of {value}"
            for name, value in {**wanted, **asked}.items()
            if there[name] != value
        ]


def costs_in(folder: Path) -> list[SensitivityInfo]:
    """What the holding costs in a folder are of."""
    found = [stored_costs(folder, path.stem) for path in folder.glob("sensitivity*.json")]
    return [info for info in found if info is not None]


def stored_costs(folder: Path, name: str) -> SensitivityInfo | None:
    """What holding costs are of, None if there are none.

    Raises:
        ConfigError: their description is damaged.
    """
    try:
        return read_info(folder, name)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def costs_of_schedule(schedule: Schedule) -> SensitivityInfo:
    """The holding costs that a schedule says it was made from."""
    extras = schedule.provenance.extras
    return SensitivityInfo(of_schedule(schedule), extras.get("draws", 0), tuple(extras.get("chunk", (0, 0))))
