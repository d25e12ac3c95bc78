"""Candidates: methods on this checkpoint, each with its sampler, its schedule and a name that says what runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bac.errors import UserError as LibraryError
from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.tuned import stored_settings_of
from bac_workbench.tuning.decisions import Ended
from diffusion_policy.common.errors import UserError

FULL = "full"


@dataclass(frozen=True)
class Candidate:
    """What could be chosen.

    Attributes:
        name: cache, sampler where it is not the checkpoint's own, precision where it is not fp32: bac_s10@ddim16.
        experiment: with its sampler and cache.
        schedule: None: every block at every step.
        method: as it was written.
    """

    name: str
    experiment: Experiment
    schedule: Schedule | None
    precision: str
    method: str

    @property
    def computed(self) -> Schedule:
        """What is computed, also where that is everything."""
        return self.schedule or Schedule.full(self.experiment.blocks, self.experiment.steps)

    @property
    def folder(self) -> str:
        return self.name.replace("@", "-").replace("/", "-")


@dataclass(frozen=True)
class Candidates:
    """All of them by name, and those that this checkpoint cannot have.

    Attributes:
        full: the full policy: every block, the checkpoint's own sampler, fp32. It is no candidate: all are compared
            with it.
    """

    full: Candidate
    named: dict[str, Candidate]
    impossible: dict[str, Ended]

    def __getitem__(self, name: str) -> Candidate:
        return self.full if name == FULL else self.named[name]


def make_candidates(
    experiment: Experiment, methods: Sequence[str], precisions: Sequence[str], say: Callable[[str], None]
) -> Candidates:
    """Finds or makes the schedule of each method; profiles the policy where one needs it.

    Args:
        experiment: with the checkpoint's own sampler.
        methods: such as bac_s10@ddim16, see `parse_method`.
        precisions: each method is a candidate in each of them.
    """
    full = Candidate(FULL, experiment.with_cache(parse_method("full").cache), None, "fp32", FULL)
    named: dict[str, Candidate] = {}
    impossible: dict[str, Ended] = {}
    seen = {(experiment.own_sampler_name, full.computed.digest, "fp32")}
    for text in methods:
        try:
            variant = variant_of(experiment, text)
            stored_settings_of(variant)  # refuses what no certificate could hold
            schedule = schedule_for(variant, say)
        except (UserError, LibraryError) as error:
            impossible[text] = Ended("candidates", f"not possible with this checkpoint: {error}")
            continue
        for precision in precisions:
            candidate = Candidate(name_of(variant, precision), variant, schedule, precision, text)
            key = (variant.sampler_name, candidate.computed.digest, precision)
            if key not in seen:
                named[candidate.name] = candidate
            seen.add(key)
    return Candidates(full, named, impossible)


def variant_of(experiment: Experiment, text: str) -> Experiment:
    """With the cache and sampler of a method.

    Raises:
        ConfigError: it is not possible for this checkpoint.
    """
    method = parse_method(text)
    variant = experiment.with_sampler(method.sampler).with_cache(method.cache)
    method.cache.check(variant.blocks, variant.steps)
    return variant


def name_of(variant: Experiment, precision: str) -> str:
    own = variant.sampler_name == variant.own_sampler_name
    name = variant.cache.label + ("" if own else f"@{variant.sampler_name}")
    return name if precision == "fp32" else f"{name}/{precision}"
