"""What a run is called in Weights & Biases, and what it is found by."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bac_workbench.settings.task import LONGEST_TAG, Wandb

if TYPE_CHECKING:
    from bac_workbench.settings.cache import Cache

#: how a tag names a budget, by the setting that gives it
BUDGETS = {"budget": "S={:g}", "budget_gflop": "{:g} GFLOP", "budget_ms": "{:g} ms", "interval": "every {:g} steps"}


@dataclass(frozen=True)
class Identity:
    """Name, group and tags of a run.

    Attributes:
        group: the task, by default.
        job_type: the command: eval, train, benchmark, tune or profile.
    """

    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]

    @classmethod
    def of(cls, task: str, job_type: str, label: str, tags: list[str]) -> Identity:
        """Named `<task> <label>`, in the group of its task. Tags are as long as Weights & Biases allows at most."""
        shortened = (tag[:LONGEST_TAG].strip() for tag in tags if tag)
        return cls(f"{task} {label}", task, job_type, tuple(dict.fromkeys(shortened)))

    def overridden(self, settings: Wandb) -> Identity:
        """With what the settings say in place of it."""
        tags = self.tags if settings.tags is None else tuple(settings.tags)
        return dataclasses.replace(
            self,
            name=settings.name or self.name,
            group=settings.group or self.group,
            tags=tuple(dict.fromkeys([*tags, *(settings.extra_tags or ())])),
        )


def cache_tags(cache: Cache) -> list[str]:
    """Method and budget: ['bac', 'S=10']; of a tuned setting also the method that it turned out to be."""
    given = getattr(cache, "budgets", None)
    if given is None:
        updates = getattr(cache, "updates", getattr(cache, "budget", None))
        given = {"budget": updates, "interval": getattr(cache, "interval", None)}
    budgets = [BUDGETS[name].format(value) for name, value in given.items() if value is not None]
    proven = [cache.label] if cache.method == "tuned" else []
    return [cache.method, *proven, *budgets]


def hardware_tag(hardware: str) -> str:
    """What computes, without the number of threads.

    Args:
        hardware: as `provenance.hardware` words it: 'GPU; processor, 4 threads' or 'processor, 4 threads'.
    """
    gpu, separator, _ = hardware.partition(";")
    return gpu if separator else hardware.rpartition(",")[0] or hardware
