"""Sensitivity-weighted ACS (S-ACS): update steps where they matter most for the executed actions, within a budget.

ACS gives every block the same number of updates, and compares features by their cosine: neither how large a block's
output is nor what the action makes of an error counts. S-ACS minimises the total cost of `bac.sensitivity` instead,
and decides the number of updates of each block, too. It is exact, in two parts:

* per block, for every number of updates m, the cheapest held intervals: the dynamic program of `bac.acs`;
* over the blocks, which m each gets: a knapsack with one choice per block. Block after block, of all totals only those
  are kept that no cheaper one beats (the Pareto front of price and cost), so the best within any budget is among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bac.holding import MAX_EXTRAPOLATION_STEPS, HoldingCosts
from bac.knapsack import best_choice
from bac.provenance import Provenance, ScheduleError, integer
from bac.schedule import REUSE, Schedule
from bac.strict_json import short_repr
from bac.update_steps import ExtrapolatedSteps, HeldSteps, UpdateSteps


def sacs(
    costs: HoldingCosts,
    prices: Mapping[str, int],
    budget: int,
    per_step: int = 0,
    reuse: str = "hold",
    provenance: Provenance | None = None,
) -> Schedule:
    """The schedule of the least total cost within a budget.

    Args:
        costs: see `bac.sensitivity.holding_costs`.
        prices: block name -> what one update of it costs, a whole number in some unit: FLOPs, nanoseconds, ...
        budget: of one action chunk, in that unit; more of it never raises the total cost.
        per_step: part of the budget that every denoising step takes, whatever is reused (embedding, head, ...).
        reuse: what a block adds between its updates, see `Schedule`.
        provenance: what is known of the costs; method and predicted cost are filled in.

    Raises:
        ScheduleError: the budget does not pay one update of every block, or a price is no whole number above 0.
    """
    _check(costs, prices, per_step)
    budget, least = integer(budget, "budget"), smallest_budget(prices, costs.steps, per_step)
    if budget < least:
        raise ScheduleError(
            f"a budget of {budget:,} does not pay one update of every block, which takes {least:,}: use that or more"
        )
    options = _options(costs, reuse)
    counts, total = best_choice(
        [integer(prices[name], "prices") for name in costs.blocks], options.values, budget - costs.steps * per_step
    )
    base = provenance or Provenance()
    chosen = {name: options.steps_of(block, counts[block]) for block, name in enumerate(costs.blocks)}
    recorded = replace(base, method="sacs", extras={**base.extras, "predicted_cost": total})
    return Schedule.from_steps(chosen, costs.steps, recorded, reuse)


def smallest_budget(prices: Mapping[str, int], steps: int, per_step: int = 0) -> int:
    """What one update of every block costs, the steps included."""
    return sum(prices.values()) + steps * per_step


def predicted_cost(schedule: Schedule, costs: HoldingCosts) -> float:
    """What `sacs` minimises, of any schedule: the sum over all blocks and intervals of reuse.

    Raises:
        ScheduleError: the schedule is of other blocks or steps, or there are no costs of its kind of reuse.
    """
    schedule.check_fits(costs.blocks, costs.steps)
    extrapolate = _line_costs(costs) if schedule.reuse == "extrapolate" else None
    total = 0.0
    for block, steps in enumerate(schedule.update_steps.values()):
        for index, (start, end) in enumerate(zip(steps, [*steps[1:], costs.steps])):
            if extrapolate is not None and index:  # the first interval has no update before it
                total += extrapolate[block, steps[index - 1], start, end - 1]
            else:
                total += costs.hold[block, start, end - 1]
    return float(total)


def _options(costs: HoldingCosts, reuse: str) -> UpdateSteps:
    if reuse not in REUSE:
        raise ScheduleError(f"unknown reuse {short_repr(reuse)}: choose one of {', '.join(REUSE)}")
    return HeldSteps(costs.hold) if reuse == "hold" else ExtrapolatedSteps(costs.hold, _line_costs(costs))


def _line_costs(costs: HoldingCosts) -> np.ndarray:
    if costs.extrapolate is None:
        raise ScheduleError(
            f"outputs are extrapolated over the steps of a deterministic sampler, at most {MAX_EXTRAPOLATION_STEPS} of "
            "them: use reuse=hold"
        )
    return costs.extrapolate


def _check(costs: HoldingCosts, prices: Mapping[str, int], per_step: int) -> None:
    if set(prices) != set(costs.blocks):
        raise ScheduleError(f"prices must name exactly the {len(costs.blocks)} blocks of the costs")
    wrong = [name for name in costs.blocks if integer(prices[name], f"the price of {name}") < 1]
    if wrong or integer(per_step, "per_step") < 0:
        raise ScheduleError(f"prices must be whole numbers above 0, that of {wrong[0] if wrong else 'a step'} is not")
