"""The `sampler` section: which denoising loop, and its options."""

from __future__ import annotations

from collections.abc import Iterator

from bac.samplers.grids import KINDS, OF_DIFFUSERS, SPACINGS, ImpossibleGrid, check_grid
from bac_workbench.settings.kinds import (
    Boolean,
    CountOrZero,
    Positive,
    Section,
    Share,
    Text,
    choice,
    integer,
    list_of,
    nullable,
)
from bac_workbench.settings.rules import Problem, Values

#: those whose steps are a scheduler's of diffusers, where no other grid is asked for
DIFFUSERS_TYPES = ("ddpm", "ddim", "dpmpp")
#: `flow` is Euler's method along a flow, of policies that learned one
SAMPLER_TYPES = (*DIFFUSERS_TYPES, "ancestral", "flow")
LONGEST = 100_000
Steps = integer(1, LONGEST)


class Sampler(Section):
    """What is null comes from the checkpoint's own sampler. Further options of the chosen scheduler may be added."""

    name: nullable(Text)
    type: nullable(choice("checkpoint", *SAMPLER_TYPES))
    steps: nullable(Steps)
    spacing: nullable(choice(*SPACINGS))
    timesteps: nullable(list_of(integer(0, LONGEST - 1), "[92,54,28,9,4]"))
    eta: nullable(Share)
    coupled: nullable(Boolean)
    timestep_spacing: nullable(choice(*OF_DIFFUSERS))
    steps_offset: nullable(CountOrZero)
    clip_sample: nullable(Boolean)
    clip_sample_range: nullable(Positive)
    thresholding: nullable(Boolean)
    set_alpha_to_one: nullable(Boolean)
    use_clipped_model_output: nullable(Boolean)
    solver_order: nullable(integer(1, 3))


def sampler_problems(values: Values) -> Iterator[Problem]:
    """What a `sampler` section rules out by itself, whatever the checkpoint."""
    kind, steps, timesteps = (values(f"sampler.{name}") for name in ("type", "steps", "timesteps"))
    spacing, other = values("sampler.spacing"), values("sampler.timestep_spacing")
    if spacing is not None and other is not None and spacing != other:
        yield "sampler.spacing", f"sampler.timestep_spacing={other} is its other spelling: leave one of them out"
    if timesteps:
        try:
            check_grid(timesteps, LONGEST)
        except ImpossibleGrid as error:
            yield "sampler.timesteps", str(error)
        if steps is not None and steps != len(timesteps):
            yield "sampler.steps", f"sampler.timesteps has {len(timesteps)} of them: leave sampler.steps out"
    if kind == "ddpm" and (timesteps or spacing not in (None, *OF_DIFFUSERS)):
        name = "sampler.timesteps" if timesteps else "sampler.spacing"
        yield name, f"sampler.type=ddpm has the spacings of diffusers, {', '.join(OF_DIFFUSERS)}: use type=ancestral"
    if kind in SAMPLER_TYPES and kind != "ddim" and values("sampler.eta") is not None:
        yield "sampler.eta", f"this is an option of sampler.type=ddim: {kind} has none"
    if kind in SAMPLER_TYPES and kind not in KINDS[:2] and values("sampler.coupled") is not None:
        yield "sampler.coupled", f"this is an option of sampler.type=ancestral and ddim: {kind} has none"
