"""The Push-T denoiser in other inference engines and in this project's runtimes, in one interleaved run.

    make peers                                        an environment of their own in build/venv-peers, then this
    python -m speed.peers [rounds=60] [threads=1] [output=results/speed/peers.json] [overwrite=false]

Everything denoises the same ten DDIM steps at batch 1. The other engines run the denoiser, exported once with fixed
shapes, in this project's loop; a chunk ends when its trajectory is there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bac.errors import Unavailable
from bac.horizon import choose_tokens
from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import timesteps_of
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from speed import arguments
from speed.engines import PEERS, tell
from speed.interleaved import Sampler, machine, milliseconds, write

CHECKPOINT = Path(__file__).parents[1] / "checkpoint/pusht_lowdim/ddpm100"
STEPS = 10
USAGE = "usage: python -m speed.peers [rounds=60] [threads=1] [output=results/speed/peers.json] [overwrite=false]"
Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


class Exported(nn.Module):
    """The denoiser as engines take it: trajectory [1, T, D], timestep int64 [1], condition [1, To, Do]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, trajectory: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.model(trajectory, timestep, condition)


class Engine(nn.Module):
    """What the loop calls in the place of the model."""

    def __init__(self, denoise: Denoise):
        super().__init__()
        self.denoise = denoise

    def forward(self, trajectory: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return self.denoise(trajectory.contiguous(), timestep.reshape(1), condition)


def own_samplers(loop: GridLoop, threads: int, kept: int | None) -> tuple[dict[str, Sampler], dict[str, str]]:
    """This project's runtimes by name, and why one is not here."""
    samplers: dict[str, Sampler] = {"plain, module by module": loop}
    absent = {}
    wanted: list[tuple[str, Any]] = [
        ("planned", ("planned", "fp32", None, None)),
        ("compiled", ("compiled", "fp32", threads, None)),
        ("compiled, bf16", ("compiled", "bf16", threads, None)),
        ("compiled, int8", ("compiled", "int8", threads, None)),
        ("compiled, executed tokens", ("compiled", "fp32", threads, kept)),
        ("compiled, bf16, executed tokens", ("compiled", "bf16", threads, kept)),
        ("compiled, int8, executed tokens", ("compiled", "int8", threads, kept)),
    ]
    for name, (runtime, precision, number, tokens) in wanted:
        try:
            samplers[name] = make_sampler(loop, None, runtime, precision, number, tokens)
        except Unavailable as error:
            absent[name] = str(error)
    return samplers, absent


@torch.no_grad()
def main(texts: list[str]) -> int:
    """Exit status: 0."""
    settings = arguments.read(texts, USAGE, "results/speed/peers.json", 60)
    threads = settings["threads"] or 1
    torch.set_num_threads(threads)
    policy = load_policy(str(CHECKPOINT)).policy
    trained = len(policy.noise_scheduler.alphas_cumprod)
    grid = GridSettings("ddim", timesteps_of("leading", STEPS, trained))
    loop, tokens = GridLoop(policy.sampler, grid), choose_tokens(policy, "executed")
    observation = policy.random_observation(1, torch.Generator().manual_seed(0))
    inputs = policy.sampler_inputs(observation)
    samplers, absent = own_samplers(loop, threads, tokens.kept)
    example = inputs.known, torch.tensor([grid.timesteps[0]]), inputs.observation
    with tempfile.TemporaryDirectory() as folder:
        for name, make in PEERS.items():
            try:
                engine = Engine(make(Exported(policy.model), example, threads, Path(folder)))
            except ImportError as error:
                absent[name] = f"not installed ({error}): make peers"
                continue
            own = loop.own
            samplers[name] = GridLoop(DiffusionSampler(engine, own.scheduler, own.num_inference_steps), grid)
        noise = lambda: torch.Generator().manual_seed(1)
        reference = loop(inputs, noise())[:, policy.chunk]
        size = float(reference.abs().max())
        apart = {
            name: float((sampler(inputs, noise())[:, policy.chunk] - reference).abs().max()) / size
            for name, sampler in samplers.items()
        }
        rows = milliseconds(samplers, inputs, settings["rounds"])
    tell(rows, apart, absent)
    content = {"steps": STEPS, "batch": 1, "threads": threads, "rows": rows, "left_out": absent, "machine": machine()}
    write(settings["output"], content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
