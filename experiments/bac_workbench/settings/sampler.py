"""The `sampler` section: which denoising loop, and its options."""

from __future__ import annotations

from bac_workbench.settings.kinds import Boolean, CountOrZero, Positive, Section, Share, Text, choice, integer, nullable

SAMPLER_TYPES = ("ddpm", "ddim", "dpmpp")
Steps = integer(1, 100_000)


class Sampler(Section):
    """What is null comes from the checkpoint's own sampler. Further options of the chosen scheduler may be added."""

    name: nullable(Text)
    type: nullable(choice("checkpoint", *SAMPLER_TYPES))
    steps: nullable(Steps)
    eta: nullable(Share)
    timestep_spacing: nullable(choice("leading", "linspace", "trailing"))
    steps_offset: nullable(CountOrZero)
    clip_sample: nullable(Boolean)
    clip_sample_range: nullable(Positive)
    thresholding: nullable(Boolean)
    set_alpha_to_one: nullable(Boolean)
    use_clipped_model_output: nullable(Boolean)
    solver_order: nullable(integer(1, 3))
