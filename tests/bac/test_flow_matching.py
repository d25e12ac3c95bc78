"""Flow matching: Euler's method as a solver's table, and a policy that learns and samples by it, in every runtime."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from bac import cache
from bac.adapters import find_blocks
from bac.runtime.choose import make_sampler
from bac.sampler_name import loop_name
from bac.samplers.grid_loop import GridLoop
from bac.samplers.settings import GridSettings, InvalidGridSettings
from bac.schedule import Schedule
from bac.sensitivity import holding_costs
from bac.solver import UnsupportedSolver, euler_solver, solver_from_scheduler
from bac.uniform import uniform
from bac_workbench.setup.samplers import build_sampler
from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.flow_matching import FlowMatching
from tests.bac.foreign_models import STEPS, case_of
from tests.bac.tiny_policies import (
    FAST,
    TOLERANCE,
    error,
    hoisting_runtime,
    observation,
    random_schedule,
    scheduler_of,
    seeded,
    tiny_policy,
)

K = 10


def flow_policy(**changes):
    """The tiny policy, with flow matching in the place of its diffusion."""
    policy = tiny_policy(**changes)
    policy._noise_scheduler = FlowMatching(100)
    policy.sampler = DiffusionSampler(policy.model, policy._noise_scheduler, K)
    return policy


def carried_out(solver, velocity, x):
    """What the table says of x, without clipping: the definition in `bac.solver`."""
    for (x_gain, m_gain, to_x, to_x0, _, to_m, _), told in zip(solver.table, solver.timesteps):
        m = velocity(x, told)
        x = to_x * x + to_x0 * (x_gain * x + m_gain * m) + to_m * m
    return x


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_diffusers_flow_matching_is_read_as_a_table(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(7)
    solver = solver_from_scheduler(scheduler)
    expected = got = torch.randn(1, 4, 3, dtype=torch.float32)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(torch.sin(expected + timestep / 1000), timestep, expected).prev_sample
    got = carried_out(solver, lambda x, told: torch.sin(x + told / 1000), got)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert solver.deterministic and solver.timesteps.dtype == np.float32


def test_stochastic_flow_matching_is_no_table():
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(4)
    with pytest.raises(UnsupportedSolver, match="stochastic_sampling"):
        solver_from_scheduler(scheduler)


@pytest.mark.parametrize("times", [np.linspace(0, 1, 6), np.linspace(1, 0, 6), [0, 0.1, 0.5, 1.0]])
def test_straight_paths_end_at_the_data_in_any_direction(times):
    """With the velocity of a straight path every step's estimate of the clean sample is the clean sample."""
    noise, clean = np.array([0.3, -1.2]), np.array([0.7, 2.0])
    velocity = (clean - noise) / (times[-1] - times[0])
    solver = euler_solver(times)
    assert carried_out(solver, lambda x, t: velocity, noise) == pytest.approx(clean)
    x = noise
    for row in solver.table:
        assert row[0] * x + row[1] * velocity == pytest.approx(clean)
        x = row[2] * x + row[5] * velocity


@pytest.mark.parametrize(("arguments", "message"), [(([0.5],), "rise or fall"), (([0, 1, 0.5],), "rise or fall"),
                                                    (([0, 0.5, 1], [3]), "as many timesteps")])  # fmt: skip
def test_impossible_times_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        euler_solver(*arguments)


@torch.no_grad()
def test_a_loop_of_the_same_solver_may_extrapolate():
    case = case_of("DiT")
    held = uniform(find_blocks(case.model), STEPS, 3)
    schedule = Schedule(held.updates, held.blocks, reuse="extrapolate")
    with cache(case.model, held):
        at_rest = case.sample()
    with cache(case.model, schedule, solver=euler_solver(np.linspace(0, 1, STEPS + 1))) as cached, cached.chunk():
        assert not torch.equal(case.sample(), at_rest)


# ---- a policy ----


@hoisting_runtime
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("changes", [{}, {"n_cond_layers": 1}, {"obs_as_cond": False}])
@torch.no_grad()
def test_fast_runtimes_sample_as_the_reference(runtime, density, changes):
    policy = flow_policy(**changes)
    inputs, schedule = policy.sampler_inputs(observation(2)), random_schedule(policy.model, K, density, seed=1)
    expected = make_sampler(policy.sampler, schedule, "reference")(inputs, seeded(0, 1))
    assert error(FAST[runtime](policy.sampler, schedule)(inputs, seeded(0, 1)), expected) < TOLERANCE
    if density == 1.0:
        assert torch.equal(policy.sampler(inputs, seeded(0, 1)), expected)


def test_the_policy_learns_the_velocity_of_straight_paths():
    """A model that knows the velocity has no loss, and leads any noise to the trajectory in any number of steps."""
    scheduler = FlowMatching(100)
    clean, noise = torch.randn(3, 6, 2), torch.randn(3, 6, 2)
    for steps in (1, 3, 10, 100):
        scheduler.set_timesteps(steps)
        x = noise
        assert scheduler.sigmas[0] == 1 and scheduler.sigmas[-1] == 0
        for timestep in scheduler.timesteps:
            torch.testing.assert_close(x, scheduler.add_noise(clean, noise, timestep.expand(3)))
            x = scheduler.step(noise - clean, timestep, x).prev_sample
        torch.testing.assert_close(x, clean)
    with pytest.raises(ValueError, match="not one of the"):
        FlowMatching(100).step(clean, 100, clean)


def test_training_lowers_the_loss():
    policy = flow_policy().train()
    generator = torch.Generator().manual_seed(0)
    batch = {"action": 40 + 7 * torch.randn(64, 6, 2), "obs": torch.randn(64, 6, 3)}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = policy.compute_loss(batch, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    with pytest.raises(ValueError, match="snr_gamma=5.0 weighs"):
        policy.compute_loss(batch, generator, snr_gamma=5.0)


def test_it_has_a_name_and_no_samplers_of_diffusion():
    policy = flow_policy()
    assert loop_name(policy.sampler, policy.noise_scheduler) == "flow10"
    assert loop_name(build_sampler(policy.sampler, {"steps": 4}), policy.noise_scheduler) == "flow4"
    for settings in ({"type": "ddim", "steps": 5}, {"type": "ancestral", "steps": 5}):
        with pytest.raises(ConfigError, match="learns flow matching or diffusion"):
            build_sampler(policy.sampler, settings)
    with pytest.raises(ConfigError, match="flow"):
        build_sampler(tiny_policy().sampler, {"type": "flow", "steps": 5})
    with pytest.raises(InvalidGridSettings, match="flow has no grid"):
        GridLoop(policy.sampler, GridSettings("ddim", (90, 10)))
    with pytest.raises(AttributeError, match="cannot be set on a policy trained with"):
        policy.noise_scheduler = DDPMScheduler(100)
    with pytest.raises(AttributeError, match="cannot be set on a policy trained with"):
        tiny_policy().noise_scheduler = FlowMatching(100)
    with pytest.raises(ValueError, match="flow matching predicts"):
        FlowMatching(100, "epsilon")
    assert scheduler_of("ddim")[0].config.prediction_type == "epsilon"


def test_sensitivities_of_a_flow_have_lines():
    policy = flow_policy()
    costs = holding_costs(policy.sampler, policy.sampler_inputs(observation(1)), policy.chunk, draws=1)
    assert costs.steps == K and costs.extrapolate is not None and costs.hold.max() > 0
