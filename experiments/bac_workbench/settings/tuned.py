"""cache=tuned: what a certificate says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bac.profile_matrices import Profile
from bac.schedule import Schedule
from bac_workbench.settings.cache import Cache


class Tuned(Cache):
    """What the task's certificate says, `<assets_dir>/<task>/tuned.json`; it names a sampler, too.

    An experiment replaces this by a `Certified` as soon as the policy is there.
    """

    @property
    def label(self) -> str:
        return self.method


class Certified(Cache):
    """The setting of a certificate that was found to be of this policy.

    Attributes:
        name: the label of the cache that was proven: results are named by what runs.
        stored: its schedule; None: every block at every step.
        note: what the certificate says.
    """

    method: ClassVar[str] = "tuned"
    name: str
    stored: Any
    note: str

    @property
    def label(self) -> str:
        return self.name

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule | None:
        return self.stored
