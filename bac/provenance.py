"""Where a schedule comes from, and the checks its stored form shares with the schedule itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bac.errors import UserError
from bac.strict_json import short_repr

MAX_EXTRAS_DEPTH = 32  # lists and mappings inside each other; deeper ones cannot be copied or compared
MAX_EXTRAS_BYTES = 2**20


class ScheduleError(UserError, ValueError):
    """A schedule is invalid, unreadable, or made for another model or sampler."""


@dataclass(frozen=True)
class Provenance:
    """Where a schedule comes from; every field but the method is optional, and all are JSON-able.

    Attributes:
        method: ``full``, ``uniform``, ``unified_acs``, ``blockwise_acs``, ``bac``, ``sacs`` or ``custom``.
        budget: updates per block before any repair; of ``sacs``, those of the BAC that takes as many FLOPs.
        metric, objective: what ACS optimised (see `bac.similarity` and `bac.acs`).
        top_k, repaired: number and names of the blocks BUA chose, worst first.
        forced_refresh: steps at which every block updates in addition to what the method chose.
        checkpoint_hash, weights: which network was profiled, and whether its ``ema`` or ``raw`` weights.
        observations, seeds: number of profiled observations and the noise seeds used.
        sampler, sampler_steps: the sampler the steps refer to, such as ``ddpm`` and 100.
        extras: anything else worth keeping; copied, and must be JSON-able.
    """

    method: str = "custom"
    budget: int | None = None
    metric: str | None = None
    objective: str | None = None
    top_k: int | None = None
    repaired: tuple[str, ...] = ()
    forced_refresh: tuple[int, ...] = ()
    checkpoint_hash: str | None = None
    weights: str | None = None
    observations: int | None = None
    seeds: tuple[int, ...] = ()
    sampler: str | None = None
    sampler_steps: int | None = None
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.method is None:
            raise ScheduleError("provenance method must be named, for example 'custom'")
        for name in ("method", "metric", "objective", "checkpoint_hash", "weights", "sampler"):
            value = getattr(self, name)
            if value is not None:
                self._set(name, text(value, f"provenance field {name!r}"))
        for name in ("budget", "top_k", "observations", "sampler_steps"):
            value = getattr(self, name)
            if value is not None:
                self._set(name, count(value, f"provenance field {name!r}"))
        for name, convert in (("repaired", text), ("forced_refresh", integer), ("seeds", integer)):
            what = f"provenance field {name!r}"
            self._set(name, tuple(convert(value, what) for value in sequence(getattr(self, name), what)))
        if self.weights not in (None, "ema", "raw"):
            raise ScheduleError(f"provenance weights must be 'ema' or 'raw', got {short_repr(self.weights)}")
        self._set("extras", _json_copy(self.extras))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen for everybody else

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, as JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v not in (None, (), {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Inverse of `to_dict`; an unknown field is an error."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ScheduleError(f"unknown provenance fields {short_repr(unknown)}: put additional facts under 'extras'")
        return cls(**values)

    def __str__(self) -> str:
        labels = {"budget": "S", "top_k": "k"}
        parts = [f"{label}={getattr(self, name)}" for name, label in labels.items() if getattr(self, name) is not None]
        return ", ".join([self.method, *parts, *filter(None, (self.metric, self.objective))])


def integer(value: Any, what: str) -> int:
    """``value`` as a plain int (NumPy integers included, booleans not), or a `ScheduleError`."""
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "__index__")):
        raise ScheduleError(f"{what} must hold integers, got {short_repr(value)}")
    try:
        return value.__index__()
    except TypeError as error:  # a NumPy array is indexable only if it holds one integer
        raise ScheduleError(f"{what} must hold integers, got {short_repr(value)}") from error


def text(value: Any, what: str) -> str:
    """``value`` if it is text that UTF-8 can hold, or a `ScheduleError`."""
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        raise ScheduleError(f"{what} must hold text, got {short_repr(value)}")
    return value


def count(value: Any, what: str) -> int:
    """``value`` as a plain int that is not negative, or a `ScheduleError`."""
    value = integer(value, what)
    if value < 0:
        raise ScheduleError(f"{what} must not be negative, got {short_repr(value)}")
    return value


def sequence(value: Any, what: str) -> list[Any]:
    """``value`` as a list if it is a collection of values, or a `ScheduleError`."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        raise ScheduleError(f"{what} must be a list, got {short_repr(value)}")
    return list(value)


def _json_copy(extras: Any) -> dict[str, Any]:
    if not isinstance(extras, Mapping):
        raise ScheduleError(f"provenance extras must be a mapping, got {type(extras).__name__}")
    try:
        # The way through JSON copies deeply and makes a stored and a fresh provenance compare equal.
        stored = json.dumps(dict(extras), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            f"provenance extras must be JSON values (text, numbers, lists): {short_repr(str(error), 300)}"
        ) from error
    except RecursionError as error:
        raise ScheduleError("provenance extras are nested too deeply") from error
    if len(stored) > MAX_EXTRAS_BYTES:
        raise ScheduleError(
            f"provenance extras are {len(stored):,} bytes of JSON, at most {MAX_EXTRAS_BYTES:,} are kept"
        )
    copy = json.loads(stored)
    level = [copy]
    for _ in range(MAX_EXTRAS_DEPTH):
        inner = [v for value in level for v in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in inner if isinstance(value, (dict, list))]
    if level:
        raise ScheduleError(f"provenance extras are nested more than {MAX_EXTRAS_DEPTH} deep")
    return copy
