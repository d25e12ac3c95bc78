"""Holding costs: what is differentiated step by step equals one graph over the whole chain."""

import numpy as np
import pytest
import torch

from bac.denoiser import branch, model_blocks
from bac.errors import Unavailable
from bac.holding import MAX_EXTRAPOLATION_STEPS
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.sensitivity import _Chain, holding_costs
from bac.solver import solver_of
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import observation, seeded, tiny_model, tiny_policy, tiny_sampler

CHUNK = slice(1, 5)
STEPS = 6
# clipping, noise, several steps, model outputs of all kinds
NAMES = ["ddpm", "ddpm narrow clip", "ddpm predicts velocity", "ddim", "ddim re-estimated", "dpm-solver++ clipped"]


def inputs_of(batch=1):
    return SamplerInputs(torch.zeros(batch, 6, 2), observation=observation(batch)["obs"])


def end_to_end(loop, inputs, direction, generators):
    """g_b(k) and f_b(k) [blocks, K, T, D] from one graph over all steps of the diffusers scheduler's own arithmetic."""
    model, blocks = loop.model, model_blocks(loop.model)
    scheduler = loop.prepared()
    x = loop.begin(scheduler, inputs.known, generators)
    features = []
    for timestep in scheduler.timesteps:  # the way of the reference runtime
        x = inputs.impose(x)
        token = model.embed_time(timestep, len(x), x.device)
        memory = None if model.encoder_only else model.encode_condition(token, inputs.observation)
        stream = model.embed_trajectory(x, token)
        masks = model.masks(stream.shape[1], 0 if memory is None else memory.shape[1])
        features.append([])
        for block in blocks:
            features[-1].append(branch(model, block, *masks)(stream, memory))
            stream = stream + features[-1][-1]
        x = loop.step(scheduler, model.read_out(stream), timestep, x, generators)
    total = (direction * inputs.impose(x)).sum()
    flat = [feature for step in features for feature in step]
    gradients = torch.autograd.grad(total, flat)
    shape = (STEPS, len(blocks), *flat[0].shape[1:])
    return [torch.cat(list(items)).reshape(shape).transpose(0, 1).detach() for items in (gradients, flat)]


def expected_moves(loop, inputs, chunk, seed=0, action_dim=2):
    generator = torch.Generator().manual_seed(seed * 1_000_003)
    solver = solver_of(loop)
    loop.draw(inputs.known, solver.draws.tolist(), [generator])  # the noise first, then the direction
    direction = torch.zeros_like(inputs.known)
    executed = direction[:, chunk, :action_dim]
    executed.copy_(torch.randn(executed.shape, generator=generator))
    gradient, feature = end_to_end(loop, inputs, direction, seeded(seed * 1_000_003))
    moves = torch.einsum("bknd,baknd->bak", gradient, feature[:, :, None] - feature[:, None])
    return np.triu(moves.double().numpy(), 1)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_the_whole_chain(name):
    loop, inputs = tiny_sampler(tiny_model(), name, STEPS), inputs_of()
    expected = expected_moves(loop, inputs, CHUNK)
    moved = _Chain(loop, CHUNK, None, 2).first_order(inputs, 1, torch.Generator().manual_seed(0))[:, 0]
    assert np.abs(expected).max() > 1e-3  # blocks matter
    np.testing.assert_allclose(moved, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"obs_as_cond": False},
        {"n_cond_layers": 1},
        {"causal_attn": False},
        {"obs_as_cond": False, "time_as_cond": False},
    ],
)
def test_every_form_of_the_denoiser(changes):
    policy = tiny_policy("ddpm", STEPS, **changes)
    inputs = policy.sampler_inputs(observation())
    expected = expected_moves(policy.sampler, inputs, policy.chunk, action_dim=policy.action_dim)
    chain = _Chain(policy.sampler, policy.chunk, None, policy.action_dim)
    moved = chain.first_order(inputs, 1, torch.Generator().manual_seed(0))[:, 0]
    np.testing.assert_allclose(moved, expected, atol=2e-5 * np.abs(expected).max())


def test_a_grid_whose_noise_is_coupled_to_the_full_policys():
    loop = GridLoop(tiny_sampler(tiny_model(), "ddpm", 100), GridSettings("ancestral", (90, 60, 40, 20, 8, 2)))
    assert loop.settings.coupled
    expected = expected_moves(loop, inputs_of(), CHUNK)
    moved = _Chain(loop, CHUNK, None, 2).first_order(inputs_of(), 1, torch.Generator().manual_seed(0))[:, 0]
    np.testing.assert_allclose(moved, expected, atol=2e-5 * np.abs(expected).max())


def costs_of(name="ddim", batch=2, **options):
    loop = tiny_sampler(tiny_model(), name, STEPS)
    return holding_costs(loop, inputs_of(batch), CHUNK, **{"draws": 3, **options})


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_costs_are_squared_sums_averaged_over_directions(name):
    costs = costs_of(name, batch=1, seed=5)
    generator = torch.Generator().manual_seed(5 * 1_000_003)
    moved = _Chain(tiny_sampler(tiny_model(), name, STEPS), CHUNK, None, 2).first_order(inputs_of(), 3, generator)
    block, a, e = 3, 1, 4
    wanted = np.mean([moved[block, p, a, a + 1 : e + 1].sum() ** 2 for p in range(3)])
    shortest = np.mean(np.square(moved[:, :, range(STEPS - 1), range(1, STEPS)]), axis=1).sum()
    assert costs.hold[block, a, e] == pytest.approx(wanted / shortest)
    assert np.diagonal(costs.hold, 1, axis1=1, axis2=2).sum() == pytest.approx(1)
    assert not np.tril(costs.hold).any()


def test_a_line_through_two_outputs_is_what_is_extrapolated():
    """The cost of the interval 3 .. 5 after updates at 1 and 3, from the definition."""
    loop, inputs = tiny_sampler(tiny_model(), "ddim", STEPS), inputs_of()
    directions = torch.Generator().manual_seed(0)
    loop.noise(inputs.known, [directions])
    direction = torch.zeros_like(inputs.known)
    direction[:, CHUNK] = torch.randn(1, 4, 2, generator=directions)
    gradient, feature = end_to_end(loop, inputs, direction, seeded(0))
    slope = (feature[:, 3] - feature[:, 1]) / 2
    moves = sum((gradient[:, k] * (feature[:, 3] + (k - 3) * slope - feature[:, k])).flatten(1).sum(1) for k in (4, 5))
    costs = costs_of(batch=1, draws=1)
    size = costs.hold[:, 0, 1] / np.square(expected_moves(loop, inputs, CHUNK)[:, 0, 1])
    np.testing.assert_allclose(costs.extrapolate[:, 1, 3, 5], moves.double().numpy() ** 2 * size, rtol=1e-3)


def test_states_count_the_same_whatever_their_size_and_company():
    together, alone = costs_of(batch=2), costs_of(batch=1)
    other = 2 * together.hold - alone.hold
    assert np.diagonal(other, 1, axis1=1, axis2=2).sum() == pytest.approx(1)
    assert other.min() > -1e-12


def test_the_first_tokens_give_the_same_costs_where_later_ones_cannot_reach_the_action():
    whole, cut = costs_of(), costs_of(tokens=CHUNK.stop)
    np.testing.assert_allclose(cut.hold, whole.hold, rtol=1e-3, atol=1e-9)


def test_only_a_deterministic_chain_of_few_steps_is_extrapolated():
    assert costs_of("ddim").extrapolate is not None
    assert costs_of("ddpm").extrapolate is None
    assert costs_of("ddim stochastic").extrapolate is None
    loop = tiny_sampler(tiny_model(n_layer=1), "ddim", MAX_EXTRAPOLATION_STEPS + 1)
    assert holding_costs(loop, inputs_of(), CHUNK, draws=1).extrapolate is None


def test_the_same_seed_gives_the_same_costs_and_progress_is_told():
    told = []
    first, second = costs_of(), costs_of(progress=lambda *state: told.append(state))
    np.testing.assert_array_equal(first.hold, second.hold)
    assert told == [(1, 2), (2, 2)]
    assert np.abs(costs_of(seed=1).hold - first.hold).max() > 1e-6


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not lie within the 4 denoised tokens"):
        costs_of(tokens=4)
    loop = tiny_sampler(tiny_model().train(), "ddim", STEPS)
    with pytest.raises(Unavailable, match="policy.eval"):
        holding_costs(loop, inputs_of(), CHUNK)
