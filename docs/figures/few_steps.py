"""What caching saves and costs where a model samples in five steps: python -m docs.figures.few_steps

The bundled Push-T policy under DPM-Solver++ with five steps. Errors are of the executed actions, to those of the five
steps with every block computed, under the same noise: root mean square over observations, in normalised units.
"""

from __future__ import annotations

import torch
from diffusers import DPMSolverMultistepScheduler

from bac import bua
from bac.flops import denoiser_cost
from bac.profiling import generators_of, profile_features
from bac.runtime.planned import PlannedSampler
from bac.sacs import sacs
from bac.sensitivity import holding_costs
from bac.uniform import uniform
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.schedulers import like_trained

OBSERVATIONS, STEPS, DRAWS = 48, 5, 4


def main() -> None:
    policy = load_policy("checkpoint/pusht_lowdim/ddpm100").policy
    loops = {
        steps: DiffusionSampler(policy.model, like_trained(policy.noise_scheduler, DPMSolverMultistepScheduler), steps)
        for steps in range(2, STEPS + 1)
    }
    generator = torch.Generator().manual_seed(0)
    inputs = policy.sampler_inputs(policy.random_observation(OBSERVATIONS, generator))
    seen, unseen = inputs[: OBSERVATIONS // 3], inputs[OBSERVATIONS // 3 :]
    cost, noise = denoiser_cost(policy.model), (0, OBSERVATIONS // 3, len(unseen))
    target = PlannedSampler(loops[STEPS])(unseen, generators_of(*noise))[:, policy.chunk]

    def show(name: str, got: torch.Tensor, flops: float) -> None:
        error = (got[:, policy.chunk] - target).square().mean().sqrt().item()
        print(f"| {name} | {flops / full:.0%} | {error:.4f} |")

    full = cost.flops(PlannedSampler(loops[STEPS]).schedule)
    print("| setting | FLOPs | error of the actions |\n|---|---|---|")
    other = PlannedSampler(loops[STEPS])(unseen, generators_of(7, *noise[1:]))
    show("another noise", other, full)
    matrices = profile_features(loops[STEPS], seen, (0,), batch_size=16)
    costs = holding_costs(loops[STEPS], seen, policy.chunk, draws=DRAWS)
    for kept in range(STEPS - 1, 1, -1):
        sampler = PlannedSampler(loops[kept])
        flops = cost.flops(sampler.schedule)
        show(f"{kept} steps", sampler(unseen, generators_of(*noise)), flops)
        even = uniform(costs.blocks, STEPS, kept)
        schedules = {
            f"Uniform, S={kept}": even,
            f"BAC, S={kept}, k=5": bua.bac(matrices["cosine"], matrices["l1"], kept, top_k=5),
            f"S-ACS, as Uniform S={kept}": sacs(costs, cost.blocks, cost.flops(even) // 2, cost.per_step),
        }
        for name, schedule in schedules.items():
            show(name, PlannedSampler(loops[STEPS], schedule)(unseen, generators_of(*noise)), cost.flops(schedule))


if __name__ == "__main__":
    with torch.no_grad():
        main()
