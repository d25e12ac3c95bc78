"""Small models and policies with weights large enough that every block matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from bac.denoiser import model_blocks
from bac.native.build import CompilerMissing, find_compiler
from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy
from diffusion_policy.policy.schedulers import like_trained

#: a runtime's output may differ from the reference's by this, relative to the largest number of the output (at least 1)
TOLERANCE = 1e-5
TRAIN = {"num_train_timesteps": 100, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2"}


def _clipped(**arguments: Any) -> Any:
    """DPM-Solver++ on the schedule of a policy that was trained with a clipping DDPM."""
    return like_trained(DDPMScheduler(**arguments), DPMSolverMultistepScheduler)


#: name -> (scheduler class, arguments, arguments of scheduler.step)
SAMPLERS: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {"variance_type": "fixed_small"}, {}),
    "ddpm large variance": (DDPMScheduler, {"variance_type": "fixed_large"}, {}),
    "ddpm log variance": (DDPMScheduler, {"variance_type": "fixed_small_log"}, {}),
    "ddpm predicts sample": (DDPMScheduler, {"prediction_type": "sample"}, {}),
    "ddpm predicts velocity": (DDPMScheduler, {"prediction_type": "v_prediction"}, {}),
    "ddpm unclipped": (DDPMScheduler, {"clip_sample": False}, {}),
    "ddpm narrow clip": (DDPMScheduler, {"clip_sample_range": 0.5}, {}),
    "ddim": (DDIMScheduler, {}, {}),
    "ddim stochastic": (DDIMScheduler, {}, {"eta": 0.7}),
    "ddim re-estimated": (DDIMScheduler, {}, {"use_clipped_model_output": True}),
    "ddim offset": (DDIMScheduler, {"set_alpha_to_one": False, "steps_offset": 1}, {}),
    "ddim trailing": (DDIMScheduler, {"timestep_spacing": "trailing"}, {}),
    "ddim linspace": (DDIMScheduler, {"timestep_spacing": "linspace"}, {"eta": 0.5}),
    "ddim predicts sample": (DDIMScheduler, {"prediction_type": "sample", "clip_sample": False}, {}),
    "ddim predicts sample, clipped": (
        DDIMScheduler,
        {"prediction_type": "sample", "clip_sample_range": 0.7},
        {"eta": 0.3},
    ),
    "ddim predicts velocity": (DDIMScheduler, {"prediction_type": "v_prediction"}, {}),
    "dpm-solver++": (DPMSolverMultistepScheduler, {}, {}),
    "dpm-solver++ order 1": (DPMSolverMultistepScheduler, {"solver_order": 1}, {}),
    "dpm-solver++ clipped": (_clipped, {}, {}),
    "dpm-solver++ narrow clip": (_clipped, {"clip_sample_range": 0.5}, {}),
    "dpm-solver++ predicts velocity": (DPMSolverMultistepScheduler, {"prediction_type": "v_prediction"}, {}),
    "dpm-solver++ predicts sample": (DPMSolverMultistepScheduler, {"prediction_type": "sample"}, {}),
}


def _has_compiler() -> bool:
    try:
        return bool(find_compiler())
    except CompilerMissing:
        return False


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="needs a C++ compiler")
#: samplers of the runtimes on a CPU; the fast ones are compared with the reference
FAST = {"planned": PlannedSampler, "compiled": CompiledCpuSampler}
RUNTIMES = {"reference": ReferenceSampler, **FAST}
#: parameter sets of tests that run in every runtime, or in those with hoisted tables
COMPILED = pytest.param("compiled", marks=needs_compiler)
hoisting_runtime = pytest.mark.parametrize("runtime", ["planned", COMPILED])
every_runtime = pytest.mark.parametrize("runtime", ["reference", "planned", COMPILED])


def scheduler_of(name: str) -> tuple[Any, dict[str, Any]]:
    """(diffusers scheduler, arguments of its `step`)."""
    kind, arguments, step_kwargs = SAMPLERS[name]
    return kind(**{**TRAIN, **arguments}), step_kwargs


@torch.no_grad()
def randomise(model: TransformerForDiffusion, seed: int, half: bool = False) -> TransformerForDiffusion:
    """Weights of a trained model's size (the initial ones are so small that blocks hardly do anything).

    half: round them to half precision, as in a checkpoint stored that way.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("pos_emb"):
            parameter.copy_(noise)
        elif parameter.ndim == 2:
            parameter.copy_(noise * parameter.shape[1] ** -0.5)
        elif "norm" in name or name.startswith("ln_f"):
            parameter.add_(0.3 * noise)
        else:
            parameter.copy_(0.2 * noise)
        if half:
            parameter.copy_(parameter.half().float())
    return model.eval()


def tiny_model(seed: int = 0, half: bool = False, **changes: Any) -> TransformerForDiffusion:
    """Two layers of width 32 on trajectories [B, 6, 2] and observations [B, 2, 3], unless changed."""
    arguments = {
        "input_dim": 2,
        "output_dim": 2,
        "horizon": 6,
        "n_obs_steps": 2,
        "cond_dim": 3,
        "n_layer": 2,
        "n_head": 2,
        "n_emb": 32,
        "p_drop_emb": 0.0,
        "p_drop_attn": 0.1,
        "causal_attn": True,
        "time_as_cond": True,
        "n_cond_layers": 0,
    }
    return randomise(TransformerForDiffusion(**{**arguments, **changes}), seed, half)


def tiny_sampler(model: TransformerForDiffusion, name: str = "ddpm", steps: int = 10) -> DiffusionSampler:
    scheduler, step_kwargs = scheduler_of(name)
    return DiffusionSampler(model, scheduler, steps, step_kwargs)


def tiny_policy(
    name: str = "ddpm",
    steps: int = 10,
    seed: int = 0,
    obs_as_cond: bool = True,
    chunk_only: bool = False,
    **changes: Any,
) -> DiffusionTransformerLowdimPolicy:
    """Policy of 2 action and 3 observation numbers, horizon 6, 2 observation steps, 4 action steps."""
    horizon = 4 if chunk_only else 6
    width = 2 if obs_as_cond else 5
    model = tiny_model(
        seed,
        **{"horizon": horizon, "input_dim": width, "output_dim": width, "cond_dim": 3 if obs_as_cond else 0, **changes},
    )
    scheduler, step_kwargs = scheduler_of(name)
    policy = DiffusionTransformerLowdimPolicy(
        model,
        scheduler,
        6,
        3,
        2,
        4,
        2,
        steps,
        obs_as_cond=obs_as_cond,
        pred_action_steps_only=chunk_only,
        **step_kwargs,
    )
    generator = torch.Generator().manual_seed(99)
    data = {"obs": torch.randn(50, 3, generator=generator), "action": 40 + 7 * torch.randn(50, 2, generator=generator)}
    policy.set_normalizer(LinearNormalizer.fit(data))
    return policy.eval()


def observation(batch: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """The same first rows for every batch size."""
    return {
        "obs": torch.cat(
            [torch.randn(1, 2, 3, generator=generator) for generator in seeded(*range(seed, seed + batch))]
        )
    }


def act(policy: Any, seed: int = 0, batch: int = 1) -> Tensor:
    """Executed actions [B, 4, 2] on `observation(batch)`, each from a noise of its own."""
    return policy.predict_action(observation(batch), seeded(*range(seed, seed + batch)))["action"]


def seeded(*seeds: int) -> list[torch.Generator]:
    """One generator per seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def random_schedule(model: TransformerForDiffusion, steps: int, density: float, seed: int) -> Schedule:
    """Every block updates at step 0 and at each later one with probability `density`."""
    blocks = model_blocks(model)
    updates = np.random.default_rng(seed).random((steps, len(blocks))) < density
    updates[0] = True
    return Schedule(updates, blocks)


def error(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected number (at least 1)."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert torch.isfinite(expected).all()
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
