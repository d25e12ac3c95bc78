"""S-ACS schedules: read from the assets, or made from holding costs and a budget."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from bac.figures import plot_schedule
from bac.flops import denoiser_cost
from bac.holding import MAX_EXTRAPOLATION_STEPS
from bac.profile_matrices import ProfileInfo
from bac.sacs import smallest_budget
from bac.schedule import Schedule, ScheduleError
from bac.solver import COLUMNS, solver_of
from bac_workbench.caching.time_budget import schedule_within_time, stopwatch, time_budget
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.profiles import Say, profile_for
from bac_workbench.profiling.request import ProfileSettings
from bac_workbench.profiling.sensitivities import costs_for
from bac_workbench.profiling.sensitivity_identity import Wanted, costs_of_schedule
from bac_workbench.provenance import hardware
from bac_workbench.settings.caches import DEFAULT_TOP_K
from bac_workbench.settings.methods import named_cache
from bac_workbench.settings.sacs import Budget, Evidence, Sacs
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked


def sacs_schedule(experiment: Experiment, say: Say, usual: ProfileSettings) -> Schedule:
    """The schedule of the experiment's S-ACS cache with its sampler.

    Raises:
        ConfigError: the budget is impossible.
        ScheduleError: a stored schedule is not what its name says.
    """
    assets, wanted = Assets.of(experiment), Wanted.of(experiment)
    if (found := stored(assets, wanted, experiment)) is not None:
        say(f"schedule: {found[0]}")
        return found[1]
    check_reuse(experiment, wanted.cache)
    budget = budget_of(experiment, wanted.cache, say, usual)
    info, costs, folder = costs_for(experiment, say, usual)
    schedule = _within(experiment, wanted.cache, Evidence(info, costs, budget), say)
    name = Path("schedules") / wanted.schedule_name
    target = folder if assets.is_writable(folder) and not (folder / name).exists() else assets.free_for(str(name))
    with locked(target, f"writing {name.name} of {experiment.settings.task.name}"):
        if (target / name).exists():  # written by another process meanwhile
            found = stored(assets, wanted, experiment)
            if found is not None:
                return found[1]
        schedule.save(target / name)
        plot_schedule(schedule, target / "figures" / f"schedule_{name.stem}.png")
    say(f"schedule: {target / name} (built from {folder / wanted.name}.npz)")
    return schedule


def stored(assets: Assets, wanted: Wanted, experiment: Experiment) -> tuple[Path, Schedule] | None:
    """A schedule of that name that was made for this checkpoint and sampler, from costs as asked for.

    Raises:
        ScheduleError: it was, but is not what its name says, or keeps to the times of another machine.
    """
    for folder in assets.folders():
        path = folder / "schedules" / wanted.schedule_name
        if not path.exists():
            continue
        schedule = Schedule.load(path)
        budget = schedule.provenance.extras.get("budget", {})
        if wanted.differences(costs_of_schedule(schedule)) or not _same_profile(assets, budget):
            continue
        schedule.check_fits(experiment.blocks, experiment.steps, experiment.loaded.hash)
        differs = wanted.cache.differences(schedule)
        if "hardware" in budget and budget["hardware"] != hardware(experiment.device):
            differs.append(f"times of {budget['hardware']}, this is {hardware(experiment.device)}")
        if differs:
            raise ScheduleError(
                f"{path} is not what its name says ({'; '.join(differs[:4])}). It is left as it is: move it away, "
                "after which it is made anew, or use another assets_dir="
            )
        return path, schedule
    return None


def _same_profile(assets: Assets, budget: dict[str, Any]) -> bool:
    """Whether a budget that follows from BAC's was worked out with a profile as asked for."""
    return "profile" not in budget or assets.is_mine(ProfileInfo.from_dict(budget["profile"]))


def _within(experiment: Experiment, cache: Sacs, evidence: Evidence, say: Say) -> Schedule:
    """The cheapest errors within the budget: as its prices add up, or, of time, as a clock measures the schedule.

    Raises:
        ConfigError: no schedule takes as little time.
    """

    def made(amount: int) -> Schedule:
        paid = replace(evidence, budget=replace(evidence.budget, amount=amount))
        return cache.schedule(experiment.blocks, experiment.steps, paid)

    if evidence.budget.unit != "nanoseconds":
        return made(evidence.budget.amount)
    return schedule_within_time(evidence.budget, experiment.steps, made, stopwatch(experiment, evidence.budget), say)


def check_reuse(experiment: Experiment, cache: Sacs) -> None:
    """Before anything is measured: whether outputs can be reused as the cache says with this sampler.

    Raises:
        ConfigError: they cannot.
    """
    if cache.reuse == "hold":
        return
    problem = None
    if solver_of(experiment.sampler).table[:, COLUMNS.index("sigma")].any():
        problem = f"{experiment.sampler_name} adds noise between its steps"
    elif experiment.steps > MAX_EXTRAPOLATION_STEPS:
        problem = f"{experiment.sampler_name} has more than {MAX_EXTRAPOLATION_STEPS} steps"
    if problem is not None:
        raise ConfigError(f"cache.reuse=extrapolate is not possible: {problem}; use sampler=ddim16 or cache.reuse=hold")


def budget_of(experiment: Experiment, cache: Sacs, say: Say, usual: ProfileSettings) -> Budget:
    """The cache's budget and the prices of updates in its unit.

    Raises:
        ConfigError: it does not pay one update of every block, or is more than the full policy takes.
    """
    (name, value), steps = next(iter(cache.budgets.items())), experiment.steps
    if name == "budget_ms":
        budget, unit = time_budget(experiment, value, say), 1e6
    else:
        budget, unit = _flops_budget(experiment, name, value, say, usual), 1e9
    least = smallest_budget(budget.prices, steps, budget.per_step)
    if budget.amount < least:
        raise ConfigError(
            f"cache.{name}={value:g} does not pay one update of every block: use at least "
            f"{math.ceil(1000 * least / unit) / 1000:g}, or a sampler of fewer steps"
        )
    most = steps * (sum(budget.prices.values()) + budget.per_step)
    if budget.amount > most:
        raise ConfigError(
            f"cache.{name}={value:g} is more than the full policy takes, which is {most / unit:.4g}: use less, or "
            "cache=full"
        )
    return budget


def _flops_budget(experiment: Experiment, name: str, value: float, say: Say, usual: ProfileSettings) -> Budget:
    cost = denoiser_cost(experiment.policy.model)
    prices = {block: 2 * macs for block, macs in cost.blocks.items()}
    if name == "budget_gflop":
        return Budget(prices, 2 * cost.per_step, int(value * 1e9), "flops", {})
    profile, _ = profile_for(experiment, say, usual)
    top_k = min(DEFAULT_TOP_K, len(experiment.blocks))
    published = named_cache("bac", budget=int(value), top_k=top_k)
    flops = cost.flops(published.schedule(experiment.blocks, experiment.steps, profile))
    say(f"budget: {flops / 1e9:.3f} GFLOP, as {published.label} takes")
    return Budget(prices, 2 * cost.per_step, flops, "flops", {"as": published.label, "profile": profile.info.to_dict()})
