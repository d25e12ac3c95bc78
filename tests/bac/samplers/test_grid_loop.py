"""A grid sampler does what the schedulers of diffusers do on the same timesteps, in every runtime."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from bac import accelerate
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import OF_DIFFUSERS, ImpossibleGrid, timesteps_of
from bac.samplers.settings import InvalidGridSettings
from bac.solver import COLUMNS, solver_from_scheduler, solver_of
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from diffusion_policy.policy.schedulers import like_trained, prepared
from tests.bac.tiny_policies import TRAIN, act, error, every_runtime, tiny_policy

FITTED = (*((1.5, -1.0, 0.2, 0.7, 0.1, 0.05, 0.1),) * 2, (1, -1, 0, 1, 0, 0, 0))
FULL = tuple(range(99, -1, -1))
PREDICTIONS = pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
CLIPPING = pytest.mark.parametrize("clip", [True, False])


class Toy(torch.nn.Module):
    """A smooth function of sample and timestep in place of a denoiser."""

    def forward(self, x, t, cond):
        return torch.tanh(0.4 * x.roll(1, -1) - 0.2 * x) + 0.003 * t


def own_loop(steps=100, **changes):
    return DiffusionSampler(Toy(), DDPMScheduler(**{**TRAIN, "variance_type": "fixed_small", **changes}), steps)


def sampled(loop, seed=0):
    return loop(SamplerInputs(torch.zeros(3, 4, 2)), torch.Generator().manual_seed(seed))


# ---- ancestral ----
@PREDICTIONS
@CLIPPING
@pytest.mark.parametrize("coupled", [None, False])
def test_with_all_timesteps_it_is_ddpm_to_the_last_bit(prediction, clip, coupled):
    own = own_loop(prediction_type=prediction, clip_sample=clip)
    loop = GridLoop(own, GridSettings("ancestral", FULL, coupled=coupled))
    expected, got = solver_of(own), solver_of(loop)
    assert np.array_equal(got.table, expected.table) and np.array_equal(got.draws, expected.draws)
    assert np.array_equal(got.timesteps, expected.timesteps) and got.clip == expected.clip
    assert torch.equal(sampled(loop), sampled(own))


@PREDICTIONS
@CLIPPING
@pytest.mark.parametrize("timesteps", [(92, 54, 28, 9, 4), (99, 98, 3, 0), (58,)])
def test_it_is_ddpm_on_custom_timesteps(prediction, clip, timesteps):
    own = own_loop(prediction_type=prediction, clip_sample=clip)
    scheduler = DDPMScheduler(**{**TRAIN, "prediction_type": prediction, "clip_sample": clip})
    scheduler.set_timesteps(timesteps=list(timesteps))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, 4, 2), generator=generator)
    for t in scheduler.timesteps:
        x = scheduler.step(Toy()(x, t, None), t, x, generator=generator).prev_sample
    got = sampled(GridLoop(own, GridSettings("ancestral", timesteps, coupled=False)))
    assert error(got, x) < 1e-6  # the last step of diffusers adds 1e-10 of noise


def test_a_step_ends_at_the_estimate_of_the_clean_sample():
    for kind in ("ancestral", "ddim", "dpmpp"):
        last = dict(zip(COLUMNS, GridLoop(own_loop(), GridSettings(kind, (60, 20, 7))).table[-1]))
        assert last["to_x0"] == pytest.approx(1, abs=1e-6)
        assert all(abs(last[name]) < 1e-6 for name in ("to_x", "to_last", "to_m", "sigma"))


# ---- ddim ----
@PREDICTIONS
@CLIPPING
@pytest.mark.parametrize("spacing", OF_DIFFUSERS)
@pytest.mark.parametrize("steps, eta", [(3, 0.0), (16, 0.6), (100, 1.0)])
def test_ddim_without_reclipping_is_diffusers_own(prediction, clip, spacing, steps, eta):
    own = own_loop(prediction_type=prediction, clip_sample=clip)
    scheduler = like_trained(own.scheduler, DDIMScheduler, timestep_spacing=spacing)
    expected = DiffusionSampler(own.model, scheduler, steps, {"eta": eta})
    settings = GridSettings("ddim", timesteps_of(spacing, steps, 100), eta=eta, reclip=False)
    loop = GridLoop(own, settings)
    assert error(sampled(loop), sampled(expected)) < 1e-5
    table = solver_from_scheduler(prepared(scheduler, steps), {"eta": eta})
    assert np.allclose(loop.table, table.table, rtol=1e-6, atol=1e-7) and np.array_equal(loop.draws, table.draws)


@PREDICTIONS
@CLIPPING
def test_reclipped_ddim_with_all_noise_is_ancestral(prediction, clip):
    own, grid = own_loop(prediction_type=prediction, clip_sample=clip), timesteps_of("three_halves", 10, 100)
    ddim = GridLoop(own, GridSettings("ddim", grid, eta=1.0))
    ancestral = GridLoop(own, GridSettings("ancestral", grid))
    assert ddim.settings.reclip is True
    assert np.allclose(ddim.table, ancestral.table, rtol=1e-4, atol=1e-5)


def test_reclipping_is_usual_but_on_the_grids_of_diffusers():
    own = own_loop()
    usual = {
        spacing: GridLoop(own, GridSettings("ddim", timesteps_of(spacing, 12, 100))).settings.reclip
        for spacing in ("quadratic", "even", *OF_DIFFUSERS)
    }
    assert usual == {"quadratic": True, "even": True, "leading": False, "linspace": False, "trailing": False}


# ---- DPM-Solver++ ----
@PREDICTIONS
@CLIPPING
@pytest.mark.parametrize("spacing", OF_DIFFUSERS)
@pytest.mark.parametrize("order", [1, 2])
def test_dpm_solver_is_diffusers_own_on_its_timesteps(prediction, clip, spacing, order):
    own = own_loop(prediction_type=prediction, clip_sample=clip)
    scheduler = like_trained(own.scheduler, DPMSolverMultistepScheduler, timestep_spacing=spacing, solver_order=order)
    expected = DiffusionSampler(own.model, scheduler, 9)
    grid = tuple(prepared(scheduler, 9).timesteps.tolist())
    assert error(sampled(GridLoop(own, GridSettings("dpmpp", grid, order=order))), sampled(expected)) < 2e-5


# ---- in a policy ----
@every_runtime
@pytest.mark.parametrize(
    "settings",
    [
        GridSettings("ancestral", (92, 54, 28, 9, 4)),
        GridSettings("ddim", (80, 30, 5), eta=0.4),
        GridSettings("ddim", (80, 30, 5), reclip=False, coupled=True),
        GridSettings("dpmpp", (90, 60, 30, 5)),
        GridSettings("ancestral", (92, 30, 4), scalars=FITTED),
    ],
    ids=lambda settings: settings.kind,
)
def test_every_runtime_runs_it_like_the_plain_policy(runtime, settings):
    policy = tiny_policy(steps=100, n_emb=64)
    policy.sampler = GridLoop(policy.sampler, settings)
    plain = act(policy, batch=2)
    with accelerate(policy, runtime=runtime) as fast:
        assert error(act(fast, batch=2), plain) < 1e-4
    assert isinstance(policy.sampler, GridLoop)


@every_runtime
def test_inpainting_and_chunks_that_follow_each_other(runtime):
    policy = tiny_policy(steps=100, obs_as_cond=False, n_emb=32)
    policy.sampler = GridLoop(policy.sampler, GridSettings("ancestral", (70, 20, 3)))
    plain = [act(policy, seed) for seed in (0, 1)]
    with accelerate(policy, runtime=runtime) as fast:
        for seed, expected in enumerate(plain):
            assert error(act(fast, seed), expected) < 1e-4


def test_the_noise_schedule_and_clipping_are_the_checkpoints():
    tables = [
        GridLoop(own_loop(**changes), GridSettings("ancestral", (40, 10))).table
        for changes in ({}, {"beta_schedule": "linear"}, {"prediction_type": "sample"})
    ]
    assert not np.allclose(tables[0], tables[1]) and not np.allclose(tables[0], tables[2])
    assert GridLoop(own_loop(clip_sample_range=0.5), GridSettings("ddim", (9,))).clip == 0.5
    assert sampled(GridLoop(own_loop(clip_sample_range=0.5), GridSettings("ddim", (60, 9)))).abs().max() <= 0.5


def test_what_does_not_fit_the_checkpoint_is_refused():
    with pytest.raises(ImpossibleGrid, match="use 0 to 99"):
        GridLoop(own_loop(), GridSettings("ancestral", (120, 4)))
    with pytest.raises(InvalidGridSettings, match="thresholding"):
        GridLoop(own_loop(thresholding=True), GridSettings("ancestral", (90, 4)))
    with pytest.raises(InvalidGridSettings, match="no signal is left: begin below it"):
        GridLoop(own_loop(rescale_betas_zero_snr=True), GridSettings("ancestral", (99, 4)))
    noisy = ((1.0, 0, 0, 1, 0, 0, 0.5),)
    with pytest.raises(InvalidGridSettings, match=r"noise at steps \[0\], where ddim draws none"):
        GridLoop(own_loop(), GridSettings("ddim", (90,), scalars=noisy))


def test_on_another_loop_or_itself_the_settings_go_along():
    own = own_loop()
    loop = GridLoop(own, GridSettings("ancestral", (90, 4)))
    assert GridLoop(loop, loop.settings).own is own
    other = loop.on(own_loop(clip_sample=False))
    assert other.settings == loop.settings and other.clip == float("inf")
