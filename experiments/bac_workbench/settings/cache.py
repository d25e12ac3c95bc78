"""What every caching method has: its settings as a section, a label, limits, and how it builds its schedule."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from bac.profile_matrices import Profile
from bac.schedule import Schedule
from bac_workbench.settings.kinds import Section
from bac_workbench.settings.schema import kind_of


class Cache(Section):
    """A caching method with its settings: which blocks reuse their outputs at which denoising steps.

    Attributes:
        method: its name, also that of its file in config/cache/.
        needs_profile: whether `schedule` takes similarity matrices.
    """

    method: ClassVar[str]
    needs_profile: ClassVar[bool] = False

    @classmethod
    def missing(cls, values: Mapping[str, Any]) -> list[str]:
        """Settings that this method needs and `values` lack; those that may be null may also be absent."""
        return [name for name, field in cls.model_fields.items() if name not in values and not kind_of(field).null]

    @property
    def label(self) -> str:
        """Short name, part of file names: full, uniform_s10, bac_s10, bac_s7_l1_k3, ..."""
        raise NotImplementedError

    @classmethod
    def settings_of(cls, tags: str) -> dict[str, Any] | None:
        """The settings that the tags of a method's text stand for: 's7' of bac_s7; None: it has no such tags."""
        match = re.fullmatch(r"s(\d{1,6})", tags)
        return {"budget": int(match[1])} if match and "budget" in cls.model_fields else None

    def check(self, blocks: Sequence[str], steps: int) -> None:
        """Whether it is possible for a model of these blocks and a sampler of `steps` denoising steps.

        Raises:
            ConfigError: it is not; the message gives the range.
        """

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule | None:
        """The schedule, from `profile` where it `needs_profile`; None: every block computes at every step.

        Raises:
            ScheduleError: a setting does not fit; `check` says so beforehand.
        """
        raise NotImplementedError

    def differences(self, schedule: Schedule) -> list[str]:
        """Where a stored schedule is not what this method with these settings makes, in words."""
        stored = schedule.provenance.method
        return [] if stored == self.method else [f"method {stored} instead of {self.method}"]


CACHES: dict[str, type[Cache]] = {}
AnyCache = TypeVar("AnyCache", bound=type[Cache])


def register(method: str) -> Callable[[AnyCache], AnyCache]:
    """Makes a class the method that `cache.method=<method>` names."""

    def add(cls: AnyCache) -> AnyCache:
        cls.method = method
        CACHES[method] = cls
        return cls

    return add
