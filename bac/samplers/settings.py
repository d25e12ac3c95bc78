"""What decides a grid sampler, beside the checkpoint's noise schedule: plain values that go into JSON and come back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bac.errors import UserError
from bac.samplers.grids import KINDS, check_grid

Rows = tuple[tuple[float, ...], ...]


class InvalidGridSettings(UserError, ValueError):
    """Settings of a grid sampler that contradict each other or are out of range."""


@dataclass(frozen=True)
class GridSettings:
    """A solver on a grid.

    Attributes:
        kind: ancestral (DDPM's posterior from each timestep to the next one of the grid), ddim, or dpmpp
            (DPM-Solver++ 2M).
        timesteps: k of them, strictly descending.
        eta: of ddim, 0 (deterministic) to 1 (as much noise as ancestral).
        coupled: whether the noise is made of the full policy's own (see `bac.samplers.coupling`); None: for ancestral,
            where it is defined.
        reclip: of ddim, whether the noise is estimated from the clipped x0, or as diffusers does from the output; None:
            but for the grids of diffusers.
        order: of dpmpp, 1 or 2.
        scalars: [k, 7] in place of the solver's table, columns as in `bac.solver.COLUMNS`.
        noise_weights: [k, T] in place of those of `bac.samplers.coupling.noise_weights`, each row of unit norm.

    Raises:
        InvalidGridSettings, ImpossibleGrid: naming what is wrong.
    """

    kind: str
    timesteps: tuple[int, ...]
    eta: float = 0.0
    coupled: bool | None = None
    reclip: bool | None = None
    order: int = 2
    scalars: Rows | None = None
    noise_weights: Rows | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "timesteps", tuple(self.timesteps))
        for name in ("scalars", "noise_weights"):
            rows = getattr(self, name)
            if rows is not None:
                object.__setattr__(self, name, tuple(tuple(float(value) for value in row) for row in rows))
        if self.kind not in KINDS:
            raise InvalidGridSettings(f"kind={self.kind} is unknown: use {', '.join(KINDS)}")
        check_grid(self.timesteps, self.timesteps[0] + 1 if self.timesteps else 0)  # T is the checkpoint's
        if isinstance(self.eta, bool) or not isinstance(self.eta, (int, float)) or not 0 <= self.eta <= 1:
            raise InvalidGridSettings(f"eta={self.eta} is not possible: use a number from 0 to 1")
        if self.eta and self.kind != "ddim":
            raise InvalidGridSettings(f"eta={self.eta} is an option of kind=ddim: {self.kind} has none")
        if self.reclip is not None and self.kind != "ddim":
            raise InvalidGridSettings(f"reclip={self.reclip} is an option of kind=ddim: {self.kind} has none")
        if self.order not in (1, 2) or (self.order != 2 and self.kind != "dpmpp"):
            raise InvalidGridSettings(f"order={self.order} is not possible: use 1 or 2, with kind=dpmpp")
        if self.coupled and self.kind == "dpmpp":
            raise InvalidGridSettings("coupled=True is of kind=ancestral or ddim: dpmpp draws its start only")
        self._check_fitted()

    def _check_fitted(self) -> None:
        if self.scalars is not None:
            _check_rows("scalars", self.scalars, self.steps, 7)
        if self.noise_weights is not None:
            if self.coupled is False or self.kind == "dpmpp":
                raise InvalidGridSettings("noise_weights mix the full policy's noise: use them with coupled=True")
            _check_rows("noise_weights", self.noise_weights, self.steps, len(self.noise_weights[0]))
            if any(abs(math.hypot(*row) - 1) > 1e-4 for row in self.noise_weights):
                raise InvalidGridSettings("every row of noise_weights needs unit norm: divide it by its norm")

    @property
    def steps(self) -> int:
        """k, the number of evaluations."""
        return len(self.timesteps)

    @property
    def fitted_digest(self) -> str | None:
        """Eight hexadecimal digits for `scalars` and `noise_weights`; None where neither is set."""
        if self.scalars is None and self.noise_weights is None:
            return None
        text = json.dumps([self.scalars, self.noise_weights])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without what is as by default."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                values[field.name] = _listed(value)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GridSettings:
        """What `to_dict` gave.

        Raises:
            InvalidGridSettings: a name is unknown or missing, or see the class.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InvalidGridSettings(f"a grid sampler has no {', '.join(unknown)}: it has {', '.join(sorted(known))}")
        if missing := sorted({"kind", "timesteps"} - set(values)):
            raise InvalidGridSettings(f"the settings of a grid sampler lack {', '.join(missing)}")
        return cls(**values)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _check_rows(name: str, rows: Rows, count: int, width: int) -> None:
    if len(rows) != count or any(len(row) != width for row in rows):
        raise InvalidGridSettings(f"{name} has to be of shape [{count}, {width}], a row for each step")
    if not all(math.isfinite(value) for row in rows for value in row):
        raise InvalidGridSettings(f"{name} holds NaN or infinity")
