"""What a profile is of: checkpoint, sampler, observations, noise seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bac.blocks import execution_order
from bac.profile_source import Source
from bac.provenance import Provenance, ScheduleError, count, integer, sequence, text
from bac.strict_json import short_repr, some

#: What `ProfileInfo.settings` may hold: how the profile was asked for, which may be more than it got.
SETTINGS = ("n_episodes", "seed_start", "n_observations", "noise_seeds")
MAX_STEPS = 2_000
MAX_NUMBERS = 100_000_000  # of all matrices: 1,000 steps of 8 layers in 4 metrics


class ProfileError(ScheduleError):
    """A profile is damaged, holds something else, or does not describe what it claims to."""


@dataclass(frozen=True)
class ProfileInfo:
    """What was profiled; decides whether a profile fits a checkpoint and sampler.

    Attributes:
        checkpoint_hash, weights: the network, and whether its ``ema`` or ``raw`` weights.
        sampler, steps: the sampler's name and number of denoising steps.
        observations: number of observations that were profiled, at least 1.
        noise_seeds: the noise seeds each of them was denoised with, at least one.
        source: where the observations come from, in words.
        settings: what was asked for, by the names in `SETTINGS`; None in profiles that were stored without. Fewer
            observations than `n_observations` were profiled if the episodes did not have as many.

    Raises:
        ProfileError: a value is of another kind or out of range.
    """

    checkpoint_hash: str
    weights: str
    sampler: str
    steps: int
    observations: int
    noise_seeds: tuple[int, ...]
    source: str
    settings: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        try:
            for name in ("checkpoint_hash", "weights", "sampler", "source"):
                text(getattr(self, name), name)
            for name in ("steps", "observations"):
                self._set(name, count(getattr(self, name), name))
            self._set("noise_seeds", _seeds(self.noise_seeds))
            if self.settings is not None:
                self._set("settings", MappingProxyType(_settings(self.settings)))
        except ProfileError:
            raise
        except ScheduleError as error:
            raise ProfileError(f"profile: {error}") from error
        if self.weights not in ("ema", "raw"):
            raise ProfileError(f"profile: weights must be 'ema' or 'raw', got {short_repr(self.weights)}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise ProfileError(f"profile: steps must lie in 1..{MAX_STEPS}, got {short_repr(self.steps)}")
        if self.observations < 1:
            raise ProfileError("a profile needs at least one observation: set profile.n_observations to 1 or more")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else

    def __reduce__(self):
        return ProfileInfo, tuple(self.to_dict().get(name) for name in self.__dataclass_fields__)

    def provenance(self) -> Provenance:
        """What a schedule that is made from this profile says of it."""
        return Provenance(
            checkpoint_hash=self.checkpoint_hash,
            weights=self.weights,
            observations=self.observations,
            seeds=self.noise_seeds,
            sampler=self.sampler,
            sampler_steps=self.steps,
            extras={"observations_from": self.source},
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `settings` only if they are known."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "settings"}
        values["noise_seeds"] = list(self.noise_seeds)
        return values if self.settings is None else {**values, "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, values: Any) -> ProfileInfo:
        """Inverse of `to_dict`.

        Raises:
            ProfileError: a field is missing, unknown or wrong.
        """
        if not isinstance(values, Mapping):
            raise ProfileError(f"a profile's description must be a JSON object, got {short_repr(values)}")
        names = set(cls.__dataclass_fields__)
        missing, unknown = sorted(names - {"settings"} - set(values)), sorted(set(values) - names)
        if missing or unknown:
            parts = ([f"missing: {some(missing)}"] if missing else []) + (
                [f"unknown: {some(unknown)}"] if unknown else []
            )
            raise ProfileError(f"the fields of a profile's description do not fit ({'; '.join(parts)})")
        return cls(**values)

    def differences(
        self,
        *,
        checkpoint_hash: str | None = None,
        weights: str | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """What of this profile is not as wanted, one phrase each; empty if nothing is. None: not compared.

        A profile that was stored without settings is compared by what follows from the rest: its source's seeds, its
        noise seeds, and its number of observations where that cannot be for want of states (every episode gives at
        least one).
        """
        found = []
        for name, label, wanted in (
            ("checkpoint_hash", "checkpoint", checkpoint_hash),
            ("weights", "weights", weights),
            ("sampler", "sampler", sampler),
            ("steps", "number of denoising steps", steps),
        ):
            own = getattr(self, name)
            if wanted is not None and own != wanted:
                found.append(f"{label} {str(own)[:12]} instead of {str(wanted)[:12]}")
        own_settings = self.known_settings
        for name, wanted in _settings(settings or {}).items():
            own = own_settings.get(name, wanted)
            if name == "n_observations" and name not in own_settings:
                too_few = self.observations < min(wanted, own_settings.get("n_episodes", 1))
                own = self.observations if too_few or self.observations > wanted else wanted
            if own != wanted:
                found.append(f"{name} {short_repr(own)} instead of {short_repr(wanted)}")
        return found

    def matches(self, **wanted: Any) -> bool:
        """Whether `differences` finds none."""
        return not self.differences(**wanted)

    @property
    def known_settings(self) -> dict[str, Any]:
        """`settings`, or what follows from the rest where the profile was stored without."""
        if self.settings is not None:
            return dict(self.settings)
        return {"noise_seeds": list(self.noise_seeds), **Source.parse(self.source).settings}


def check_blocks(blocks: tuple[str, ...]) -> None:
    """Raises `ProfileError` unless these are the names of all blocks of one denoiser, in execution order."""
    try:
        ordered = execution_order(blocks)
    except ValueError as error:
        raise ProfileError(f"a profile's blocks: {error}") from error
    if ordered != blocks:
        raise ProfileError("a profile's blocks must be in execution order (bac.blocks.execution_order)")


def _seeds(values: Any) -> tuple[int, ...]:
    seeds = tuple(integer(value, "noise_seeds") for value in sequence(values, "noise_seeds"))
    if not seeds:
        raise ProfileError("a profile needs at least one noise seed: set profile.noise_seeds, for example [0, 1]")
    return seeds


def _settings(values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping) or set(values) - set(SETTINGS):
        raise ProfileError(f"the settings of a profile are {', '.join(SETTINGS)}; got {short_repr(values)}")
    return {
        name: list(_seeds(value)) if name == "noise_seeds" else count(value, name) for name, value in values.items()
    }
