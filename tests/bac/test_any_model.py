"""Schedules for any model in its own loop: profiles, ACS, BUA, S-ACS, and arithmetic.

A Transformer Diffusion Policy is a model like any other, so what the paper's code path measures of it has to come out.
"""

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import nn

from bac import Block, Schedule, UserError, bua, cache
from bac.adapters import find_blocks
from bac.any_model import loop_costs, model_cost, profile_model
from bac.blocks import parse
from bac.cached_model import CacheError
from bac.flops import denoiser_cost
from bac.loop import SamplerInputs
from bac.profiling import generators_of, profile_features
from bac.runtime.reference import ReferenceSampler
from bac.sacs import predicted_cost, sacs, smallest_budget
from bac.schedule import ScheduleError
from bac.sensitivity import holding_costs
from bac.solver import solver_from_scheduler
from bac.uniform import uniform
from tests.bac.foreign_models import ACTION, CONDITION, MODELS, RDT, STEPS, TOKENS, case_of, randomised
from tests.bac.tiny_policies import observation, random_schedule, tiny_policy


def blocks_of(case, name):
    return find_blocks(case.model), MODELS[name][1]


def of_row(policy, batch: int, row: int) -> SamplerInputs:
    return policy.sampler_inputs(observation(batch))[row : row + 1]


@torch.no_grad()
def test_the_policy_itself_is_cached_as_by_the_reference_runtime():
    """The policy's own sampler is a loop that knows nothing of caching."""
    policy = tiny_policy("ddim", 6)
    inputs, schedule = policy.sampler_inputs(observation(2)), random_schedule(policy.model, 6, 0.4, seed=3)
    expected = ReferenceSampler(policy.sampler, schedule)(inputs, generators_of(0, 0, 2))
    with cache(policy.model, schedule) as cached, cached.chunk():
        got = policy.sampler(inputs, generators_of(0, 0, 2))
    assert torch.equal(got, expected)


@torch.no_grad()
def test_lines_through_outputs_are_followed_where_nothing_is_random():
    policy = tiny_policy("ddim", 6)
    held = random_schedule(policy.model, 6, 0.5, seed=1)
    schedule = type(held)(held.updates, held.blocks, held.provenance, "extrapolate")
    with pytest.raises(ScheduleError, match="may add noise"):
        cache(policy.model, schedule)
    inputs = policy.sampler_inputs(observation(1))
    expected = ReferenceSampler(policy.sampler, schedule)(inputs, generators_of(0, 0, 1))
    solver = solver_from_scheduler(policy.sampler.prepared())
    with cache(policy.model, schedule, solver=solver):
        assert torch.equal(policy.sampler(inputs, generators_of(0, 0, 1)), expected)


def test_profiles_of_the_policy_are_those_of_its_own_profiler():
    policy = tiny_policy(steps=5)
    expected = profile_features(policy.sampler, policy.sampler_inputs(observation(2)), (0,), batch_size=1)

    def run(index):
        policy.sampler(of_row(policy, 2, index), generators_of(0, index, 1))

    got = profile_model(policy.model, find_blocks(policy.model), 5, run, runs=2)
    for metric, by_block in expected.items():
        for block, matrix in by_block.items():
            np.testing.assert_array_equal(got[metric][block], matrix)


def test_costs_of_the_policy_are_those_of_its_own_measurement():
    """Backward through the whole loop, or step by step with the adjoint: the same sensitivities."""
    policy = tiny_policy("ddim", 4)
    inputs = policy.sampler_inputs(observation(2))
    loop, model = policy.sampler, policy.model

    def run(index):
        row, scheduler, generators = inputs[index : index + 1], loop.prepared(), [torch.Generator().manual_seed(index)]
        x = loop.begin(scheduler, row.known, generators)
        for timestep in scheduler.timesteps:
            x = loop.step(scheduler, model(x, timestep, row.observation), timestep, x, generators)
        return x[:, 1:2, :1]

    # of a single number, whose direction does not matter
    expected = holding_costs(loop, inputs, slice(1, 2), draws=1, action_dim=1)
    got = loop_costs(model, find_blocks(model), 4, run, 2, draws=1, deterministic=True)
    assert got.blocks == expected.blocks and expected.hold.max() > 0
    np.testing.assert_allclose(got.hold, expected.hold, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got.extrapolate, expected.extrapolate, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_schedules_are_made_and_followed(name):
    """From nothing but a model and its loop: BAC within its budget, S-ACS cheaper than Uniform at the same FLOPs."""
    case = case_of(name)
    blocks, method = blocks_of(case, name)
    matrices = profile_model(case.model, blocks, STEPS, lambda i: case.sample(2, seed=7 * i), 2, method)
    bac = bua.bac(matrices["cosine"], matrices["l1"], 2, top_k=2)
    assert set(bac.updates_per_block.values()) <= set(range(2, STEPS + 1)) and len(bac.provenance.repaired) == 2
    with torch.enable_grad():
        costs = loop_costs(
            case.model, blocks, STEPS, lambda i: case.sample(1, seed=i), 3, draws=3, deterministic=True, method=method
        )
    even = uniform(blocks, STEPS, 3)
    prices = dict.fromkeys(blocks, 1)
    best = sacs(costs, prices, even.update_count)
    assert predicted_cost(best, costs) < predicted_cost(even, costs) and best.update_count <= even.update_count
    with torch.no_grad():
        for schedule in (bac, best):
            with cache(case.model, schedule, method=method) as cached, cached.chunk():
                assert torch.isfinite(case.sample(2)).all()
            assert cached.block_updates == schedule.updates_per_block


def test_frozen_weights_have_costs_too():
    case = case_of("DiT")
    blocks = find_blocks(case.model)
    expected = loop_costs(case.model, blocks, STEPS, lambda i: case.sample(1, seed=i), 1)
    case.model.requires_grad_(False)
    got = loop_costs(case.model, blocks, STEPS, lambda i: case.sample(1, seed=i), 1)
    np.testing.assert_allclose(got.hold, expected.hold, rtol=1e-4, atol=1e-6)


def test_a_loop_without_gradients_is_refused():
    case = case_of("DiT")
    with pytest.raises(CacheError, match="without torch.no_grad"):
        loop_costs(case.model, find_blocks(case.model), STEPS, torch.no_grad()(lambda i: case.sample()), 1)
    with pytest.raises(CacheError, match=f"called the model {STEPS} times"):
        profile_model(case.model, find_blocks(case.model), STEPS + 1, lambda i: case.sample(), 1)


def test_arithmetic_of_the_policy_is_what_is_counted_by_hand():
    policy = tiny_policy()
    model = policy.model
    cost = model_cost(model, find_blocks(model), lambda: model(torch.zeros(1, 6, 2), 3, torch.zeros(1, 2, 3)))
    by_hand = denoiser_cost(model)
    assert cost == by_hand


def test_arithmetic_is_a_price_for_schedules():
    case = case_of("RDT")
    blocks = find_blocks(case.model)
    one = torch.zeros(1, TOKENS, ACTION), torch.zeros(1), torch.zeros(1, CONDITION)
    cost = model_cost(case.model, blocks, lambda: case.model(*one))
    rows, width = TOKENS + 1, 32
    assert cost.blocks["layers.0.ffn"] == 2 * rows * width * width
    assert cost.blocks["layers.0.attn"] == 4 * rows * width * width + 2 * rows * rows * width
    assert cost.flops(uniform(blocks, STEPS, 3)) < cost.flops(uniform(blocks, STEPS, STEPS))
    assert smallest_budget(cost.blocks, STEPS) == sum(cost.blocks.values())


@torch.no_grad()
def test_28_layers_of_rdt_in_five_steps_of_dpm_solver():
    """RDT-1B's depth and sampler; diffusers' scheduler is the loop."""
    model = randomised(RDT(layers=28))
    blocks = find_blocks(model)
    assert len(blocks) == 84 and [parse(block).kind for block in blocks[:3]] == ["sa", "ca", "ffn"]

    def sample():
        scheduler = DPMSolverMultistepScheduler(prediction_type="sample", solver_order=2)
        scheduler.set_timesteps(5)
        x = torch.ones(2, TOKENS, ACTION)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, (t / 1000).expand(2), torch.ones(2, CONDITION)), t, x).prev_sample
        return x

    plain = sample()
    with cache(model, uniform(blocks, 5, 5)) as cached, cached.chunk():
        assert torch.equal(sample(), plain)
    with cache(model, uniform(blocks, 5, 3)) as cached, cached.chunk():
        assert 0 < (sample() - plain).abs().max() < 1e3
    assert cached.block_updates.total() == 3 * 84


def test_a_branch_that_is_a_sequence_is_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Identity()

        def forward(self, x):
            return self.branch({"x": x})["x"] + x

    with (
        cache(Odd(), Schedule.full([Block("branch")], 2)) as cached,
        pytest.raises(UserError, match="branch gives a dict"),
    ):
        cached.model(torch.ones(1))
