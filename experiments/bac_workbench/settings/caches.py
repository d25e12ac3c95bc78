"""The `cache` section: one class per caching method, with its label, its limits and how it builds its schedule.

A further method is one class here, decorated by `register`, and one file in config/cache/ with its settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_type_hints

from pydantic import create_model

from bac.acs import OBJECTIVES, blockwise_acs, unified_acs
from bac.bua import bac
from bac.profile_matrices import Profile
from bac.schedule import Schedule
from bac.similarity import METRICS
from bac.uniform import uniform
from bac_workbench.settings.cache import CACHES, Cache, register
from bac_workbench.settings.kinds import CountOrZero, Section, choice, integer, list_of, nullable
from bac_workbench.settings.sacs import Sacs
from bac_workbench.settings.sampler import Steps
from bac_workbench.settings.schema import kind_of
from bac_workbench.settings.tuned import Tuned
from diffusion_policy.common.config import ConfigError

DEFAULT_TOP_K = 5
DEFAULT_BUDGET = 10  # of Uniform
EITHER = "the updates are as many or as far apart, leave one of them out"


@register("full")
class Full(Cache):
    """No caching."""

    @property
    def label(self) -> str:
        return self.method

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> None:
        return None


class Budgeted(Cache):
    """A method that gives every block the same number of updates.

    Attributes:
        budget: S of the paper, updates of each block per chunk.
    """

    budget: Steps

    @property
    def label(self) -> str:
        return f"{self.method}_s{self.budget}"

    def check(self, blocks: Sequence[str], steps: int) -> None:
        if not 1 <= self.budget <= steps:
            raise ConfigError(
                f"cache.budget={self.budget} is not possible: use 1 to {steps}, the sampler's number of steps"
            )


@register("uniform")
class Uniform(Cache):
    """All blocks update at the same, evenly spaced steps.

    Attributes:
        budget: their number, `DEFAULT_BUDGET` if neither is given.
        interval: their distance in steps, instead: updates are at every step k with k % interval == 0.
    """

    budget: nullable(Steps)
    interval: nullable(Steps)

    @property
    def updates(self) -> int | None:
        """The budget; None: the interval decides."""
        return DEFAULT_BUDGET if self.budget is None and self.interval is None else self.budget

    @property
    def label(self) -> str:
        return f"{self.method}_every{self.interval}" if self.updates is None else f"{self.method}_s{self.updates}"

    @classmethod
    def settings_of(cls, tags: str) -> dict[str, Any] | None:
        match = re.fullmatch(r"every(\d{1,6})", tags)
        return {"interval": int(match[1])} if match else super().settings_of(tags)

    def check(self, blocks: Sequence[str], steps: int) -> None:
        if self.budget is not None and self.interval is not None:
            raise ConfigError(f"cache.interval={self.interval} and cache.budget={self.budget}: {EITHER}")
        name, value = ("interval", self.interval) if self.updates is None else ("budget", self.updates)
        if not 1 <= value <= steps:
            raise ConfigError(f"cache.{name}={value} is not possible: use 1 to {steps}, the sampler's number of steps")

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule:
        return uniform(blocks, steps, self.updates, interval=self.interval)


class Adaptive(Budgeted):
    """A method that chooses the update steps by the Adaptive Caching Scheduler (`bac.acs`), from a profile."""

    needs_profile: ClassVar[bool] = True
    metric: choice(*METRICS)
    objective: choice(*OBJECTIVES)

    @property
    def label(self) -> str:
        metric = "" if self.metric == "cosine" else f"_{self.metric}"
        objective = "" if self.objective == "cached_to_skipped" else f"_{self.objective}"
        return super().label + metric + objective

    def differences(self, schedule: Schedule) -> list[str]:
        origin = schedule.provenance
        differs = super().differences(schedule) + [
            f"{name} {getattr(origin, name)} instead of {value}"
            for name, value in self.expected_provenance.items()
            if getattr(origin, name) != value
        ]
        return differs or self.wrong_counts(schedule)

    @property
    def expected_provenance(self) -> dict[str, Any]:
        """What a schedule of this cache says of itself, by the fields of `bac.provenance.Provenance`."""
        return {"budget": self.budget, "metric": self.metric, "objective": self.objective}

    def wrong_counts(self, schedule: Schedule) -> list[str]:
        """Blocks with other numbers of updates than the budget says. A repair only adds some, a forced refresh too."""
        origin = schedule.provenance
        most = self.budget + len(origin.forced_refresh)
        return [
            f"{count} updates of {block} instead of {self.budget}"
            for block, count in schedule.updates_per_block.items()
            if count < self.budget or (block not in origin.repaired and count > most)
        ]


@register("unified_acs")
class UnifiedAcs(Adaptive):
    """One adaptive schedule for all blocks, found on the self-attention of layer 0."""

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule:
        matrices, provenance = profile.matrices[self.metric], profile.info.provenance()
        return unified_acs(matrices, self.budget, self.metric, self.objective, provenance=provenance)


@register("blockwise_acs")
class BlockwiseAcs(Adaptive):
    """An adaptive schedule for each block, without repair."""

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule:
        matrices, provenance = profile.matrices[self.metric], profile.info.provenance()
        return blockwise_acs(matrices, self.budget, self.metric, self.objective, provenance=provenance)


@register("bac")
class Bac(Adaptive):
    """Block-wise ACS, repaired by the Bubbling Union Algorithm (BUA): the method of the paper.

    Attributes:
        top_k: number of blocks that BUA repairs.
        forced_refresh: steps at which every block updates in addition.
    """

    top_k: CountOrZero
    forced_refresh: nullable(list_of(integer(0, 99_999), "[99]", empty=True))

    @property
    def refresh_steps(self) -> tuple[int, ...]:
        """`forced_refresh`, ascending."""
        return tuple(sorted(self.forced_refresh or ()))

    @property
    def label(self) -> str:
        repaired = "" if self.top_k == DEFAULT_TOP_K else f"_k{self.top_k}"
        return super().label + repaired + "".join(f"_r{step}" for step in self.refresh_steps)

    def check(self, blocks: Sequence[str], steps: int) -> None:
        super().check(blocks, steps)
        if not 0 <= self.top_k <= len(blocks):
            raise ConfigError(
                f"cache.top_k={self.top_k} is not possible: use 0 to {len(blocks)}, the model's number of blocks"
            )
        if self.refresh_steps and self.refresh_steps[-1] >= steps:
            raise ConfigError(
                f"cache.forced_refresh={list(self.refresh_steps)} is not possible: use steps from 0 to {steps - 1}"
            )

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule:
        return bac(
            profile.matrices[self.metric],
            profile.matrices["l1"],
            self.budget,
            self.top_k,
            self.metric,
            self.objective,
            forced_refresh=self.refresh_steps,
            provenance=profile.info.provenance(),
        )

    @property
    def expected_provenance(self) -> dict[str, Any]:
        return {**super().expected_provenance, "top_k": self.top_k, "forced_refresh": self.refresh_steps}

    def wrong_counts(self, schedule: Schedule) -> list[str]:
        repaired = len(schedule.provenance.repaired)
        wrong = [] if repaired == self.top_k else [f"{repaired} repaired blocks instead of {self.top_k}"]
        return wrong + super().wrong_counts(schedule)


register("sacs")(Sacs)
register("tuned")(Tuned)


def make_cache(values: Mapping[str, Any]) -> Cache:
    """The cache that a `cache` section asks for; settings of other methods are left alone.

    Args:
        values: `method` and that method's settings.

    Raises:
        ConfigError: the method is unknown, or a setting of it is missing.
    """
    method = values.get("method")
    if method not in CACHES:
        raise ConfigError(f"cache.method={method} is unknown: use {', '.join(CACHES)}")
    cls = CACHES[method]
    if missing := cls.missing(values):
        names = ", ".join(f"cache.{name}" for name in missing)
        raise ConfigError(f"cache.method={method}: {names} missing; choose it with cache={method}")
    return cls.model_validate({name: values[name] for name in cls.model_fields if name in values})


def all_settings() -> dict[str, Any]:
    """The fields of all methods, by name; those of one name are of one kind, but that some may be null."""
    hints: dict[str, Any] = {}
    for cls in CACHES.values():
        own = get_type_hints(cls, include_extras=True)
        for name, field in cls.model_fields.items():
            if name not in hints or kind_of(field).null:
                hints[name] = (own[name], None)
    return hints


#: the section as it is typed: the settings of every method beside each other
CacheSection = create_model("CacheSection", __base__=Section, method=(choice(*CACHES), None), **all_settings())


def method_of(label: str) -> str:
    """The caching method of a label such as bac_s10; the label itself where no method is called so."""
    fitting = [name for name in CACHES if label == name or label.startswith(f"{name}_")]
    return max(fitting, key=len, default=label)
