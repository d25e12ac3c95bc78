"""The settings of `cache=sacs`: sensitivity-weighted ACS (`bac.sacs`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bac.holding import HoldingCosts
from bac.sacs import sacs
from bac.schedule import REUSE, Schedule
from bac.sensitivity_files import SensitivityInfo
from bac_workbench.settings.cache import Cache
from bac_workbench.settings.kinds import Count, NoiseSeed, Positive, choice, integer, nullable
from bac_workbench.settings.sampler import Steps
from diffusion_policy.common.config import ConfigError

USUAL_BUDGET = 10
BUDGETS = {"budget": "s", "budget_gflop": "g", "budget_ms": "ms"}
#: settings that decide which costs are measured, with their tags in a label and their usual values
MEASURED = {"n_states": ("n", 16), "draws": ("v", 4), "seed": ("seed", 0)}


@dataclass(frozen=True)
class Budget:
    """What an action chunk may cost, and what its parts do, in whole numbers of one unit.

    Attributes:
        prices, per_step: of one update of each block, and of a step whatever is reused.
        amount: for the chunk.
        unit: flops or nanoseconds.
        details: how it came about, for the schedule's provenance.
    """

    prices: Mapping[str, int]
    per_step: int
    amount: int
    unit: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What an S-ACS schedule is made from: holding costs, what they are of, and a budget."""

    info: SensitivityInfo
    costs: HoldingCosts
    budget: Budget


class Sacs(Cache):
    """Updates where they matter most for the executed actions, within a budget for all blocks together.

    Attributes:
        budget: S; as many FLOPs as BAC takes with that budget (top_k 5, cosine). 10 where no other budget is given.
        budget_gflop: GFLOP of one action chunk, all tokens counted as in the tables of results.
        budget_ms: milliseconds of denoising one action chunk at batch 1 on this machine.
        reuse: what a block adds between its updates: its last output held, or its last two extrapolated.
        n_states, draws, seed: visited states, random directions per state, and the seed of both their noises.
    """

    budget: nullable(Steps)
    budget_gflop: nullable(Positive)
    budget_ms: nullable(Positive)
    reuse: choice(*REUSE)
    n_states: Count
    draws: integer(1, 1000)
    seed: NoiseSeed

    @property
    def budgets(self) -> dict[str, float]:
        """The budget, by the name of its setting."""
        given = {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}
        return given or {"budget": USUAL_BUDGET}

    @property
    def label(self) -> str:
        budget = "".join(f"_{BUDGETS[name]}{value:g}" for name, value in self.budgets.items())
        return f"{self.method}{budget}{'_x' if self.reuse == 'extrapolate' else ''}{self.measured}"

    @property
    def measured(self) -> str:
        """Tags of the settings that decide which costs are measured, where they are not the usual ones."""
        changed = {tag: getattr(self, name) for name, (tag, usual) in MEASURED.items() if getattr(self, name) != usual}
        return "".join(f"_{tag}{value}" for tag, value in changed.items())

    @classmethod
    def settings_of(cls, tags: str) -> dict[str, Any] | None:
        match = re.fullmatch(r"(s|g|ms)(\d{1,6}(?:\.\d{1,6})?)(_x)?", tags)
        if match is None or (match[1] == "s" and "." in match[2]):
            return None
        names = {tag: name for name, tag in BUDGETS.items()}
        value = int(match[2]) if match[1] == "s" else float(match[2])
        settings: dict[str, Any] = {names[match[1]]: value}
        return {**settings, "reuse": "extrapolate"} if match[3] else settings

    def check(self, blocks: Sequence[str], steps: int) -> None:
        if len(self.budgets) > 1:
            raise ConfigError(f"give one budget, not {' and '.join(f'cache.{name}' for name in self.budgets)}")
        if "budget" in self.budgets and not 1 <= self.budgets["budget"] <= steps:
            raise ConfigError(
                f"cache.budget={self.budgets['budget']} is not possible: use 1 to {steps}, the sampler's number of "
                "steps, or set cache.budget_gflop"
            )

    def schedule(self, blocks: Sequence[str], steps: int, profile: Evidence | None = None) -> Schedule:
        """See `Cache.schedule`; its evidence takes the place of similarity matrices."""
        budget, origin = profile.budget, profile.info.provenance
        recorded = {"asked": self.budgets, budget.unit: budget.amount, **budget.details}
        origin = replace(origin, budget=self.budgets.get("budget"), extras={**origin.extras, "budget": recorded})
        return sacs(profile.costs, budget.prices, budget.amount, budget.per_step, self.reuse, origin)

    def differences(self, schedule: Schedule) -> list[str]:
        extras: Mapping[str, Any] = schedule.provenance.extras
        stored = {"reuse": schedule.reuse, "draws": extras.get("draws")}
        stored |= {"seed": list(schedule.provenance.seeds), "budget": extras.get("budget", {}).get("asked")}
        wanted = {"reuse": self.reuse, "draws": self.draws, "seed": [self.seed], "budget": self.budgets}
        return super().differences(schedule) + [
            f"{name} {stored[name]} instead of {value}" for name, value in wanted.items() if stored[name] != value
        ]
