"""S-ACS budgets in milliseconds: what updates cost on this machine, and a schedule that a clock finds within them.

The cost of one update is the time saved where all others are made. In a sparse schedule an update takes longer: what
the processor had at hand from its neighbours it has to fetch. So a schedule whose prices add up to the budget exceeds
it, and the amount to spend is corrected by the ratio of measured to wanted until the schedule itself keeps to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from bac.block_times import block_times, chunk_time
from bac.errors import Unavailable
from bac.horizon import executed_tokens
from bac.loop import SamplerInputs
from bac.native.errors import CompilerMissing
from bac.provenance import Provenance
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac.sacs import smallest_budget
from bac.schedule import Schedule
from bac_workbench.profiling.profiles import Say
from bac_workbench.provenance import hardware
from bac_workbench.settings.sacs import Budget
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError

ROUNDS = 8
AIM = 0.98  # of the budget, so that the clock's noise does not end above it
CLOSE = 0.95  # of the budget: near enough


def time_budget(experiment: Experiment, milliseconds: float, say: Say) -> Budget:
    """The budget of a chunk, and what one update of each block and a step cost, in nanoseconds at batch 1."""
    runtime = "compiled"
    try:
        _sampler(experiment, runtime, None)
    except (CompilerMissing, Unavailable) as error:
        say(f"the compiled runtime is not to be had ({error}): timing the planned one")
        runtime = "planned"
    with torch.inference_mode():
        times = block_times(experiment.sampler, _inputs(experiment), lambda made: _sampler(experiment, runtime, made))
    machine = hardware(experiment.device)
    say(f"budget: times of one update in the {runtime} runtime on {machine}")
    details = {"runtime": runtime, "hardware": machine}
    return Budget(times.blocks, times.per_step, int(milliseconds * 1e6), "nanoseconds", details)


def stopwatch(experiment: Experiment, budget: Budget) -> Callable[[Schedule], int]:
    """What a chunk takes with a schedule, in nanoseconds: the median of 15 at batch 1 in the budget's runtime."""
    inputs = _inputs(experiment)

    def time(schedule: Schedule) -> int:
        with torch.inference_mode():
            return chunk_time(_sampler(experiment, budget.details["runtime"], schedule), inputs)

    return time


def schedule_within_time(
    budget: Budget, steps: int, made: Callable[[int], Schedule], clock: Callable[[Schedule], int], say: Say
) -> Schedule:
    """The schedule that takes most of the budget and not more, by the clock; what it took is in its provenance.

    Args:
        steps: of the sampler.
        made: the schedule of an amount, as the prices add it up.
        clock: the nanoseconds of a chunk with it.

    Raises:
        ConfigError: none was found that takes as little.
    """
    least = smallest_budget(budget.prices, steps, budget.per_step)
    most = steps * (sum(budget.prices.values()) + budget.per_step)
    amount, best, fastest = budget.amount, None, None
    for _ in range(ROUNDS):
        schedule = made(amount)
        took = clock(schedule)
        fastest = took if fastest is None else min(fastest, took)
        if took <= budget.amount and (best is None or took > best[1]):
            best = schedule, took
        if best is not None and best[1] >= CLOSE * budget.amount:
            break
        corrected = min(max(int(amount * AIM * budget.amount / took), least), most)
        if corrected == amount:
            break
        amount = corrected
    if best is None:
        raise ConfigError(
            f"cache.budget_ms={budget.amount / 1e6:g}: the fastest schedule found takes {fastest / 1e6:.3g} ms "
            "here: use more, or a sampler of fewer steps"
        )
    schedule, took = best
    say(f"budget: the schedule takes {took / 1e6:.3g} of {budget.amount / 1e6:g} ms here")
    return replace(schedule, provenance=_with_time(schedule.provenance, budget.amount, took))


def _with_time(provenance: Provenance, amount: int, took: int) -> Provenance:
    spent = {**provenance.extras["budget"], "nanoseconds": amount, "measured": took}
    return replace(provenance, extras={**provenance.extras, "budget": spent})


def _sampler(experiment: Experiment, runtime: str, schedule: Schedule | None) -> Runtime:
    return make_sampler(experiment.sampler, schedule, runtime, tokens=executed_tokens(experiment.policy))


def _inputs(experiment: Experiment) -> SamplerInputs:
    policy = experiment.policy
    return policy.sampler_inputs(policy.random_observation(1, torch.Generator().manual_seed(0)))
