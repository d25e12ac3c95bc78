"""Coupled noise: standard normal and independent, and the full policy's own where all its steps are taken."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from bac.runtime.choose import make_sampler
from bac.samplers.coupling import noise_weights
from bac.samplers.grid_loop import GridLoop, GridSettings, UndefinedCoupling
from bac.samplers.grids import timesteps_of
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, draw_noise, draw_noises
from tests.bac.tiny_policies import every_runtime, observation, scheduler_of, seeded, tiny_policy
from tests.conftest import ROOT

GRIDS = pytest.mark.parametrize("timesteps", [(92, 54, 28, 9, 4), (99, 50, 0), (58,), timesteps_of("even", 50, 100)])


def own_loop(name="ddpm", steps=100):
    scheduler, step_kwargs = scheduler_of(name)
    return DiffusionSampler(torch.nn.Identity(), scheduler, steps, step_kwargs)


def products():
    return own_loop().scheduler.alphas_cumprod.double().numpy()


@GRIDS
def test_each_noise_has_unit_norm_and_they_share_no_draw(timesteps):
    weights = noise_weights(products(), timesteps)
    assert weights.shape == (len(timesteps), 100) and (weights >= 0).all()
    assert np.allclose(weights @ weights.T, np.eye(len(timesteps)), atol=1e-12)


def test_the_sum_of_the_noise_is_what_the_full_chain_adds():
    """With x0 held, both chains are Gaussian: a coarse step carries on and adds as much as the fine ones together."""
    alphas = products()
    timesteps = (80, 35, 6)
    weights = noise_weights(alphas, timesteps)
    a, s = np.sqrt(alphas), np.sqrt(1 - alphas)
    noises = np.random.default_rng(0).standard_normal(100)
    fine, kept = noises[0] * s[99], {}
    for u in range(99, 0, -1):  # the part of x that is not x0's
        kept[u] = fine
        q = a[u] * s[u - 1] / (s[u] * a[u - 1])
        fine = q * s[u - 1] / s[u] * fine + s[u - 1] * np.sqrt(1 - q**2) * noises[100 - u]
    assert weights[0] @ noises == pytest.approx(kept[80] / s[80], rel=1e-4)
    for row, (t, n) in enumerate(zip(timesteps, timesteps[1:]), start=1):
        q = a[t] * s[n] / (s[t] * a[n])
        expected = (kept[n] - q * s[n] / s[t] * kept[t]) / (s[n] * np.sqrt(1 - q**2))
        assert weights[row] @ noises == pytest.approx(expected)


@GRIDS
def test_many_draws_are_standard_normal_and_independent(timesteps):
    loop = GridLoop(own_loop(), GridSettings("ancestral", timesteps))
    initial, noises = loop.draw(torch.zeros(500, 4, 2), loop.draws, torch.Generator().manual_seed(0))
    drawn = torch.stack([initial, *(noise for noise in noises if noise is not None)]).flatten(1)
    assert len(drawn) == len(timesteps) and noises[-1] is None
    covariance = drawn.double() @ drawn.double().T / drawn.shape[1]
    assert drawn.mean(1).abs().max() < 0.08 and (covariance - torch.eye(len(drawn))).abs().max() < 0.1


@every_runtime
def test_with_all_steps_it_is_the_full_policy_to_the_last_bit(runtime):
    policy = tiny_policy(steps=100, n_emb=32)
    loop = GridLoop(policy.sampler, GridSettings("ancestral", timesteps_of("even", 100, 100)))
    inputs = policy.sampler_inputs(observation(3))
    full, coupled = (make_sampler(each, None, runtime)(inputs, seeded(0, 1, 2)) for each in (policy.sampler, loop))
    assert loop.settings.coupled and torch.equal(full, coupled)


@pytest.mark.parametrize("single", [True, False])
@GRIDS
def test_a_generator_ends_where_the_full_policy_leaves_it(timesteps, single):
    policy = tiny_policy(steps=100, n_emb=32)
    inputs = policy.sampler_inputs(observation(2))
    after = []
    for loop in (policy.sampler, GridLoop(policy.sampler, GridSettings("ancestral", timesteps))):
        generators = seeded(7) if single else seeded(7, 8)
        loop(inputs, generators[0] if single else generators)
        after.append([torch.rand((), generator=generator) for generator in generators])
    assert after[0] == after[1]


def test_a_samples_noise_does_not_depend_on_its_batch():
    loop = GridLoop(own_loop(), GridSettings("ancestral", (92, 54, 28, 9, 4)))
    several = loop.draw(torch.zeros(3, 5, 2), loop.draws, seeded(0, 1, 2))
    alone = loop.draw(torch.zeros(1, 5, 2), loop.draws, seeded(1))
    assert torch.equal(several[0][1:2], alone[0])
    assert all(torch.equal(a[1:2], b) for a, b in zip(several[1][:-1], alone[1][:-1]))


@pytest.mark.parametrize("shape", [(1, 4, 2), (1, 3, 2), (3, 16, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noises_drawn_together_are_those_drawn_one_by_one(shape, dtype):
    like = torch.zeros(shape, dtype=dtype)
    for make in (lambda: torch.Generator().manual_seed(5), lambda: seeded(*range(5, 5 + shape[0]))):
        one_by_one = make()
        expected = torch.stack([draw_noise(shape, like, one_by_one) for _ in range(6)])
        assert torch.equal(draw_noises(6, like, make()), expected)
    with pytest.raises(ValueError, match="pass one per sample"):
        draw_noises(2, like, seeded(*range(shape[0] + 1)))


# ---- where it is defined ----
@pytest.mark.parametrize(
    "own, message",
    [
        (own_loop("ddim"), "the policy's own sampler is a DDIMScheduler"),
        (own_loop(steps=50), "the policy's own sampler takes 50"),
        (own_loop("ddpm large variance"), "the policy's own is fixed_large"),
    ],
)
def test_where_there_is_no_full_policy_to_follow_it_is_refused_or_fresh(own, message):
    assert not GridLoop(own, GridSettings("ancestral", (90, 4))).settings.coupled
    for kind in ("ancestral", "ddim"):
        with pytest.raises(UndefinedCoupling, match=f"{message}: use coupled=false"):
            GridLoop(own, GridSettings(kind, (90, 4), coupled=True))


def test_fitted_weights_are_taken_as_they_are():
    own, weights = own_loop(), np.zeros((2, 100))
    weights[0, 3] = weights[1, 7] = 1
    loop = GridLoop(own, GridSettings("ancestral", (90, 4), noise_weights=weights))
    like = torch.zeros(2, 3, 2)
    initial, noises = loop.draw(like, loop.draws, torch.Generator().manual_seed(0))
    drawn = draw_noises(100, like, torch.Generator().manual_seed(0))
    assert torch.equal(initial, drawn[3]) and torch.equal(noises[0], drawn[7])


# ---- on a trained policy ----
@functools.cache
def pusht():
    return load_policy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100").policy


def test_actions_follow_the_full_policys_of_the_same_seed(one_torch_thread):
    policy = pusht()
    inputs = policy.sampler_inputs(policy.random_observation(12, torch.Generator().manual_seed(0)))

    def chunks(loop, seed=0):
        return make_sampler(loop, None, "planned")(inputs, seeded(*range(100 * seed, 100 * seed + 12)))[:, policy.chunk]

    def rms(a, b):
        return (a - b).square().mean().sqrt().item()

    grid = timesteps_of("three_halves", 10, 100)
    coupled, fresh = (GridLoop(policy.sampler, GridSettings("ancestral", grid, coupled=each)) for each in (True, False))
    full = chunks(policy.sampler)
    assert rms(chunks(coupled), full) < 0.6 * rms(chunks(fresh), full)
    assert rms(chunks(coupled), full) < 0.6 * rms(chunks(policy.sampler, seed=1), full)


def test_ddim_may_start_where_the_full_policy_is_on_its_way(one_torch_thread):
    own = own_loop()
    loop = GridLoop(own, GridSettings("ddim", (40, 4), coupled=True))
    initial, noises = loop.draw(torch.zeros(1, 4, 2), loop.draws, torch.Generator().manual_seed(0))
    plain = GridLoop(own, GridSettings("ddim", (40, 4)))
    assert noises == [None, None] and not torch.equal(initial, plain.draw(initial, plain.draws, seeded(0))[0])
