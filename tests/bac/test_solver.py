"""The table of numbers does what the diffusers scheduler does."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from bac.solver import COLUMNS, UnsupportedSolver, solver_from_scheduler
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from diffusion_policy.policy.schedulers import GridDDIM, arguments, like_trained, prepared
from tests.bac.tiny_policies import SAMPLERS, TRAIN, error, scheduler_of


class Toy(torch.nn.Module):
    """A smooth function of sample and timestep in place of a denoiser."""

    def forward(self, x, t, cond):
        return torch.tanh(0.4 * x.roll(1, -1) - 0.2 * x) + 0.003 * t


def run(solver, shape, generator):
    """The update of bac.solver's docstring, literally, in double precision."""
    x = torch.randn(shape, generator=generator) * solver.init_sigma
    last, toy = torch.zeros(shape, dtype=torch.float64), Toy()
    for step, t in enumerate(solver.timesteps.tolist()):
        row = dict(zip(COLUMNS, solver.table[step].tolist()))
        noise = torch.randn(shape, generator=generator) if solver.draws[step] else torch.zeros(shape)
        m, x = toy(x, t, None).double(), x.double()
        x0 = (row["x_gain"] * x + row["m_gain"] * m).clamp(-solver.clip, solver.clip)
        x = row["to_x"] * x + row["to_x0"] * x0 + row["to_last"] * last + row["to_m"] * m + row["sigma"] * noise
        x, last = x.float(), x0
    return x


OTHERS = {
    "ddpm trailing": (DDPMScheduler(**TRAIN, timestep_spacing="trailing"), {}),
    "ddpm linear betas": (DDPMScheduler(), {}),
    "ddim trailing": (DDIMScheduler(**TRAIN, timestep_spacing="trailing"), {}),
    "ddim stochastic sample": (
        DDIMScheduler(**{**TRAIN, "prediction_type": "sample"}, clip_sample=False),
        {"eta": 1.0},
    ),
    "ddim re-estimated sample": (
        DDIMScheduler(**{**TRAIN, "prediction_type": "sample"}),
        {"use_clipped_model_output": True},
    ),
    "dpm-solver++ karras": (DPMSolverMultistepScheduler(**TRAIN, use_karras_sigmas=True), {}),
    "dpm-solver++ heun": (DPMSolverMultistepScheduler(**TRAIN, solver_type="heun"), {}),
    "dpm-solver++ last step of order 2": (
        DPMSolverMultistepScheduler(**TRAIN, lower_order_final=False, final_sigmas_type="sigma_min"),
        {},
    ),
    "dpm-solver++ last step by Euler": (DPMSolverMultistepScheduler(**TRAIN, euler_at_final=True), {}),
}


@pytest.mark.parametrize("steps", [1, 4, 10, 25])
@pytest.mark.parametrize("name", [*SAMPLERS, *OTHERS])
def test_table_reproduces_the_scheduler(name, steps):
    scheduler, step_kwargs = OTHERS[name] if name in OTHERS else scheduler_of(name)
    check_table(scheduler, step_kwargs, steps)


@pytest.mark.parametrize(
    "name", ["ddpm", "ddpm large variance", "ddpm log variance", "ddpm unclipped", "ddim", "ddim stochastic"]
)
def test_all_training_steps(name):
    check_table(*scheduler_of(name), steps=100)


def check_table(scheduler, step_kwargs, steps):
    shape = (3, 4, 2)
    generator = torch.Generator().manual_seed(steps)
    expected = DiffusionSampler(Toy(), scheduler, steps, step_kwargs)(SamplerInputs(torch.zeros(shape)), generator)
    after = torch.rand((), generator=generator)
    solver = solver_from_scheduler(prepared(scheduler, steps), step_kwargs)
    generator.manual_seed(steps)
    assert error(run(solver, shape, generator), expected) < 1e-5
    assert torch.rand((), generator=generator) == after, "noise must be drawn as often as the scheduler draws it"


def test_the_scheduler_is_left_as_it_is():
    scheduler = DPMSolverMultistepScheduler(**TRAIN)
    scheduler.set_timesteps(7)
    before = scheduler.timesteps.clone()
    step_kwargs = {}
    solver = solver_from_scheduler(prepared(scheduler, 12), step_kwargs)
    assert torch.equal(scheduler.timesteps, before) and scheduler.step_index is None
    assert solver.steps == 12 and solver.timesteps.dtype == np.int64 and solver.table.shape == (12, len(COLUMNS))


@pytest.mark.parametrize(
    ("scheduler", "step_kwargs", "named"),
    [
        (
            DPMSolverMultistepScheduler(**{**TRAIN, "prediction_type": "flow_prediction"}, use_flow_sigmas=True),
            {},
            "prediction_type='flow_prediction'",
        ),
        (DDPMScheduler(**TRAIN, thresholding=True), {}, "thresholding=True"),
        (DDPMScheduler(**TRAIN), {"eta": 1.0}, r"options \['eta'\]"),
        (DDIMScheduler(**TRAIN), {"eta": 1.0, "variance_noise": torch.zeros(1)}, r"options \['variance_noise'\]"),
        (DPMSolverMultistepScheduler(**TRAIN, algorithm_type="sde-dpmsolver++"), {}, "sde-dpmsolver.. of order 2"),
        (DPMSolverMultistepScheduler(**TRAIN, solver_order=3), {}, "order 3"),
        (PNDMScheduler(**TRAIN), {}, "PNDMScheduler"),
        (EulerDiscreteScheduler(**TRAIN), {}, "EulerDiscreteScheduler"),
    ],
)
def test_what_is_not_supported_is_named(scheduler, step_kwargs, named):
    with pytest.raises(UnsupportedSolver, match=f"{named}.*use runtime=reference"):
        solver_from_scheduler(prepared(scheduler, 10), step_kwargs)


def test_a_scheduler_that_gives_nan_is_refused():
    """diffusers' DPM-Solver++ divides zero by zero where two of its timesteps coincide."""
    scheduler = DPMSolverMultistepScheduler(**TRAIN)
    sampled = DiffusionSampler(Toy(), scheduler, 100)(
        SamplerInputs(torch.zeros(1, 4, 2)), torch.Generator().manual_seed(0)
    )
    assert torch.isnan(sampled).all()
    with pytest.raises(
        ValueError, match="DPMSolverMultistepScheduler with 100 steps gives NaN or infinity at step .*fewer steps"
    ):
        solver_from_scheduler(prepared(scheduler, 100))


# ---- where diffusers' schedulers are corrected -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_positional_arguments_count(kind):
    """diffusers' from_config forgets them: 1000 linear steps would be assumed."""
    positional, named = kind(100, 1e-4, 0.02, "squaredcos_cap_v2"), kind(**TRAIN)
    tables = [solver_from_scheduler(prepared(scheduler, 10)) for scheduler in (positional, named)]
    assert np.array_equal(tables[0].table, tables[1].table) and np.array_equal(tables[0].timesteps, tables[1].timesteps)
    for other in (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler):
        assert arguments(like_trained(positional, other)) == arguments(like_trained(named, other))
    check_table(positional, {}, 10)


def test_a_schedule_replaced_on_the_scheduler_itself_counts():
    scheduler = DDPMScheduler(**TRAIN)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**2
    assert not np.array_equal(
        solver_from_scheduler(prepared(scheduler, 10)).table,
        solver_from_scheduler(prepared(DDPMScheduler(**TRAIN), 10)).table,
    )
    check_table(scheduler, {}, 10)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("steps", [4, 7, 10])
def test_ddim_on_its_grid_is_that_of_diffusers_where_its_grid_is_even(prediction, eta, steps):
    scheduler = DDIMScheduler(**{**TRAIN, "prediction_type": prediction})
    scheduler.set_timesteps(steps)
    own = GridDDIM(**arguments(scheduler))
    own.set_timesteps(steps)
    x = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps.tolist():
        output = Toy()(x, t, None)
        steps_taken = [
            s.step(output, t, x, eta=eta, generator=torch.Generator().manual_seed(t)).prev_sample
            for s in (scheduler, own)
        ]
        assert error(steps_taken[1], steps_taken[0]) < 1e-6
        x = steps_taken[0]


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("steps", [3, 7, 16, 30])
def test_a_perfect_network_is_followed_on_every_grid(spacing, steps):
    """The network knows the clean sample. Every step ends exactly at the noise level of the next timestep."""
    scheduler = DDIMScheduler(**TRAIN, timestep_spacing=spacing, clip_sample=False)
    own = prepared(scheduler, steps)
    clean, noise = torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), -1.2)
    grid = own.timesteps.tolist()
    x = own.add_noise(clean, noise, torch.tensor(grid[0]))
    for t, following in zip(grid, grid[1:]):
        product = own.alphas_cumprod[t]
        x = own.step((x - product**0.5 * clean) / (1 - product) ** 0.5, t, x).prev_sample
        assert torch.allclose(x, own.add_noise(clean, noise, torch.tensor(following)), atol=1e-3)


def test_rounding_does_not_add_a_timestep():
    """np.arange(100, 0, -100 / 49) ends just above 0, which diffusers takes for timestep -1: the noisiest."""
    for steps in range(1, 100):
        for kind in (DDPMScheduler, DDIMScheduler):
            grid = prepared(kind(**TRAIN, timestep_spacing="trailing"), steps).timesteps
            assert len(grid) == steps and (grid >= 0).all()


@pytest.mark.parametrize(
    ("scheduler", "steps", "message"),
    [
        (DDIMScheduler(**TRAIN, steps_offset=1), 100, "takes timesteps 100 ... 1, which do not descend within 0..99"),
        (DDPMScheduler(**TRAIN, variance_type="fixed_large_log"), 10, "root of a logarithm.*use fixed_large"),
        (
            DDPMScheduler(**TRAIN, variance_type="learned_range"),
            10,
            "'learned_range' cannot be sampled: the model would have to",
        ),
    ],
)
def test_what_diffusers_gets_wrong_is_refused_everywhere(scheduler, steps, message):
    with pytest.raises(ValueError, match=message):
        solver_from_scheduler(prepared(scheduler, steps))
    with pytest.raises(ValueError, match=message):
        DiffusionSampler(Toy(), scheduler, steps)(SamplerInputs(torch.zeros(1, 4, 2)))


def test_dpm_solver_clips_as_the_policy_was_trained():
    trained = DDPMScheduler(**TRAIN, clip_sample_range=1.5)
    scheduler = like_trained(trained, DPMSolverMultistepScheduler)
    assert solver_from_scheduler(prepared(scheduler, 16)).clip == 1.5
    assert (
        like_trained(DDPMScheduler(**TRAIN, clip_sample=False), DPMSolverMultistepScheduler).config.get("clip_sample")
        is None
    )
    with pytest.raises(ValueError, match="cannot clip the clean sample"):
        like_trained(trained, DPMSolverMultistepScheduler, algorithm_type="dpmsolver", final_sigmas_type="sigma_min")
    with pytest.raises(ValueError, match="has no option etta"):
        like_trained(trained, DDIMScheduler, etta=1.0)
