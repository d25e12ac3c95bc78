"""Uniform caching: every block updates at the same, evenly spaced steps. The baseline; it needs no profile."""

from __future__ import annotations

from collections.abc import Sequence

from bac.blocks import execution_order
from bac.provenance import Provenance, ScheduleError, integer
from bac.schedule import Schedule


def uniform(blocks: Sequence[str], steps: int, budget: int | None = None, *, interval: int | None = None) -> Schedule:
    """Evenly spaced updates, given their number or their distance.

    ``budget=S`` gives exactly ``S`` updates per block, at ``floor(i * steps / S)`` for i = 0 .. S-1. If S divides
    the number of steps, that is every ``steps / S`` steps; otherwise neighbouring gaps differ by at most one step
    (S=7 of 100: 0, 14, 28, 42, 57, 71, 85).

    ``interval=n`` updates at every step k with ``k % n == 0``, which is ``ceil(steps / n)`` updates. The released
    code turns S into ``interval = steps // S``, so its "S=7" is ``interval=14``: eight updates, not seven.

    Args:
        blocks: block names in execution order.
        steps: number of denoising steps.
        budget: updates per block, 1 .. steps.
        interval: steps between updates, 1 or more; give either this or ``budget``.

    Raises:
        ScheduleError: neither or both of budget and interval, or one out of range.
        ValueError: invalid or repeated block names.
    """
    if (budget is None) == (interval is None):
        raise ScheduleError("give exactly one of budget (updates per block) and interval (steps between updates)")
    if interval is not None:
        interval = integer(interval, "interval")
        if interval < 1:
            raise ScheduleError(f"interval must be at least 1 step, got {interval}")
        chosen: Sequence[int] = range(0, steps, interval)
        provenance = Provenance("uniform", budget=len(chosen), extras={"interval": interval})
    else:
        budget = integer(budget, "budget")
        if not 1 <= budget <= steps:
            raise ScheduleError(f"budget must lie in 1..{steps} (the number of steps), got {budget}")
        chosen = [i * steps // budget for i in range(budget)]
        provenance = Provenance("uniform", budget=budget)
    return Schedule.from_steps(dict.fromkeys(execution_order(blocks), chosen), steps, provenance)
