"""How the compiled runtime's time grows with steps, tokens, width, layers, batch and threads.

    python -m speed.growth [rounds=30] [threads=1] [output=results/speed/growth.json] [overwrite=false]

Random weights of the bundled Push-T policy's form, one thing changed at a time; each thing is one interleaved run.
Weights have half precision, as the bundled ones.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import torch
from diffusers import DDPMScheduler

from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import timesteps_of
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from speed import arguments
from speed.interleaved import Sampler, machine, milliseconds, write

USAGE = "usage: python -m speed.growth [rounds=30] [threads=1] [output=results/speed/growth.json] [overwrite=false]"
TRAINED = 100


@dataclasses.dataclass(frozen=True)
class Form:
    """A model and how it is used."""

    steps: int = 10
    tokens: int = 16
    width: int = 256
    layers: int = 8
    batch: int = 1
    threads: int = 1


AXES: dict[str, tuple[int, ...]] = {
    "steps": (1, 2, 4, 5, 10, 20, 50, 100),
    "tokens": (2, 4, 8, 9, 16),
    "width": (64, 128, 256, 512, 768),
    "layers": (2, 4, 8, 12),
    "batch": (1, 2, 4, 8, 16, 32),
}


def sampler_of(form: Form) -> tuple[Sampler, SamplerInputs]:
    torch.manual_seed(0)
    model = TransformerForDiffusion(
        2, 2, 16, n_obs_steps=2, cond_dim=20, n_layer=form.layers, n_head=4, n_emb=form.width, causal_attn=True,
        obs_as_cond=True,
    )  # fmt: skip
    model.eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    scheduler = DDPMScheduler(TRAINED, beta_schedule="squaredcos_cap_v2")
    own = DiffusionSampler(model, scheduler, TRAINED)
    loop = GridLoop(own, GridSettings("ancestral", timesteps_of("even", form.steps, TRAINED), coupled=False))
    inputs = SamplerInputs(torch.zeros(form.batch, 16, 2), observation=torch.randn(form.batch, 2, 20))
    return make_sampler(loop, None, "compiled", "fp32", form.threads, form.tokens), inputs


@torch.no_grad()
def main(texts: list[str]) -> int:
    """Exit status: 0."""
    settings = arguments.read(texts, USAGE, "results/speed/growth.json", 30)
    torch.set_num_threads(1)
    base = Form(threads=settings["threads"] or 1)
    cores = len(os.sched_getaffinity(0))
    axes = {**AXES, "threads": tuple(sorted({n for n in (1, 2, 4, 8) if n < cores} | {cores}))}
    measured: dict[str, list[dict[str, Any]]] = {}
    for axis, values in axes.items():
        made = {value: sampler_of(dataclasses.replace(base, **{axis: value})) for value in values}
        samplers: dict[str, Sampler] = {
            str(value): (lambda _, noise, own=own, given=given: own(given, noise))
            for value, (own, given) in made.items()
        }
        rows = milliseconds(samplers, made[values[0]][1], settings["rounds"])
        measured[axis] = [{axis: value, **row} for value, row in zip(values, rows)]
        print(f"{axis}: " + ", ".join(f"{row['name']}: {row['ms_p50']:.2f} ms" for row in rows))
    write(settings["output"], {"base": dataclasses.asdict(base), "axes": measured, "machine": machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
