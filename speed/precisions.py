"""The compiled runtime's precisions on the bundled Push-T policy, in one interleaved run.

    python -m speed.precisions [rounds=60] [threads=1] [output=results/speed/precisions.json] [overwrite=false]

The executed tokens of five ancestral steps, ten DDIM steps and the full policy, in every precision that this processor
multiplies, at batch 1; and how far each moves the actions. Then five ancestral steps at several batches, on a processor
with a tile unit (AMX) also without it. What rounding costs in score is a matter of rollouts: shs/precisions.sh.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bac.horizon import choose_tokens
from bac.loop import DenoisingLoop
from bac.native import build, levels
from bac.native.packing import block_matrices
from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import timesteps_of
from bac_workbench.setup.rounding import OBSERVATIONS, rounding
from bac_workbench.timing.floors import measure_floors
from diffusion_policy.common.checkpoint import load_policy
from speed import arguments
from speed.interleaved import Sampler, machine, milliseconds, write

CHECKPOINT = Path(__file__).parents[1] / "checkpoint/pusht_lowdim/ddpm100"
USAGE = "usage: python -m speed.precisions [rounds=60] [threads=1] [output=results/speed/precisions.json]"
BATCHES = (1, 4, 28)
GRIDS = {"ancestral5": ("ancestral", "quadratic", 5), "ddim10": ("ddim", "leading", 10)}


@torch.no_grad()
def main(texts: list[str]) -> int:
    """Exit status: 0."""
    settings = arguments.read(texts, USAGE, "results/speed/precisions.json", 60)
    threads = settings["threads"] or 1
    torch.set_num_threads(threads)
    policy = load_policy(str(CHECKPOINT)).policy
    own, kept = policy.sampler, choose_tokens(policy, "executed").kept
    loops: dict[str, DenoisingLoop] = {
        name: GridLoop(own, GridSettings(kind, timesteps_of(spacing, steps, 100)))
        for name, (kind, spacing, steps) in GRIDS.items()
    }
    loops["ddpm100"] = own
    inputs = policy.sampler_inputs(policy.random_observation(1, torch.Generator().manual_seed(0)))
    precisions = levels.choose_level(build.library()).precisions
    rows = []
    for name, loop in loops.items():
        samplers: dict[str, Sampler] = {
            precision: make_sampler(loop, None, "compiled", precision, threads, kept) for precision in precisions
        }
        for row in milliseconds(samplers, inputs, settings["rounds"]):
            precision = row.pop("name")
            moved, noise = rounding(policy, loop, None, "compiled", precision, kept)
            rows.append({"sampler": name, "precision": precision, **row, "moved": moved, "another_noise": noise})
            print(f"{name} {precision}: {row['ms_p50']:.2f} ms, moves actions by {moved:.2%} of their deviation")
    batches = []
    samplers = {
        f"{level} {precision}": sampler
        for level in compared_levels()
        for precision, sampler in made_at(level, loops["ancestral5"], threads, kept).items()
    }
    for batch in BATCHES:
        inputs = policy.sampler_inputs(policy.random_observation(batch, torch.Generator().manual_seed(0)))
        for row in milliseconds(samplers, inputs, settings["rounds"]):
            level, precision = row.pop("name").split()
            batches.append({"batch": batch, "level": level, "precision": precision, **row})
            print(f"batch {batch}, {level}, {precision}: {row['ms_p50']:.2f} ms")
    floors = measure_floors(torch.device("cpu"), 4 * sum(p.numel() for p in policy.model.trunk.parameters()), True)
    gflops = {precision: floors.gflops_of(precision) for precision in precisions}
    content = {"threads": threads, "tokens": kept, "observations": OBSERVATIONS, "rows": rows, "gflops": gflops}
    weights = sum(weight.numel() for weight in block_matrices(policy.model))
    memory = {"weights": weights, "weights_gb_per_s": floors.weights_gb_per_s}
    write(settings["output"], {**content, "batches": batches, **memory, "machine": machine()})
    return 0


def compared_levels() -> list[str]:
    """The level that runs, and without its tile unit where it has one."""
    name = levels.choose_level(build.library()).name
    return [name, "avx512_bf16"] if name == "amx" else [name]


def made_at(name: str, loop: DenoisingLoop, threads: int, kept: int | None) -> dict[str, Sampler]:
    """Samplers of every precision at a level."""
    with chosen(name):
        precisions = levels.choose_level(build.library()).precisions
        return {precision: make_sampler(loop, None, "compiled", precision, threads, kept) for precision in precisions}


@contextmanager
def chosen(level: str) -> Iterator[None]:
    """$BAC_LEVEL is `level` meanwhile."""
    before = os.environ.get("BAC_LEVEL")
    os.environ["BAC_LEVEL"] = level
    try:
        yield
    finally:
        del os.environ["BAC_LEVEL"]
        if before is not None:
            os.environ["BAC_LEVEL"] = before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
