"""The table of numbers does what the diffusers scheduler does."""
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from tiny_policies import SAMPLERS, TRAIN, error, scheduler_of

from bac.solver import COLUMNS, UnsupportedSolver, solver_from_scheduler
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler


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
    "ddim stochastic sample": (DDIMScheduler(**{**TRAIN, "prediction_type": "sample"}, clip_sample=False), {"eta": 1.0}),
    "ddim re-estimated sample": (DDIMScheduler(**{**TRAIN, "prediction_type": "sample"}), {"use_clipped_model_output": True}),
    "dpm-solver++ karras": (DPMSolverMultistepScheduler(**TRAIN, use_karras_sigmas=True), {}),
    "dpm-solver++ heun": (DPMSolverMultistepScheduler(**TRAIN, solver_type="heun"), {}),
    "dpm-solver++ last step of order 2": (DPMSolverMultistepScheduler(**TRAIN, lower_order_final=False, final_sigmas_type="sigma_min"), {}),
    "dpm-solver++ last step by Euler": (DPMSolverMultistepScheduler(**TRAIN, euler_at_final=True), {}),
}


@pytest.mark.parametrize("steps", [1, 4, 10, 25])
@pytest.mark.parametrize("name", [*SAMPLERS, *OTHERS])
def test_table_reproduces_the_scheduler(name, steps):
    scheduler, step_kwargs = OTHERS[name] if name in OTHERS else scheduler_of(name)
    check_table(scheduler, step_kwargs, steps)


@pytest.mark.parametrize("name", ["ddpm", "ddpm large variance", "ddpm log variance", "ddpm unclipped", "ddim", "ddim stochastic"])
def test_all_training_steps(name):
    check_table(*scheduler_of(name), steps=100)


def check_table(scheduler, step_kwargs, steps):
    shape = (3, 4, 2)
    generator = torch.Generator().manual_seed(steps)
    expected = DiffusionSampler(Toy(), scheduler, steps, step_kwargs)(torch.zeros(shape), None, None, generator)
    after = torch.rand((), generator=generator)
    solver = solver_from_scheduler(scheduler, steps, step_kwargs)
    generator.manual_seed(steps)
    assert error(run(solver, shape, generator), expected) < 1e-5
    assert torch.rand((), generator=generator) == after, "noise must be drawn as often as the scheduler draws it"


def test_the_scheduler_is_left_as_it_is():
    scheduler = DPMSolverMultistepScheduler(**TRAIN)
    scheduler.set_timesteps(7)
    before = scheduler.timesteps.clone()
    step_kwargs = {}
    solver = solver_from_scheduler(scheduler, 12, step_kwargs)
    assert torch.equal(scheduler.timesteps, before) and scheduler.step_index is None
    assert solver.steps == 12 and solver.timesteps.dtype == np.int64 and solver.table.shape == (12, len(COLUMNS))


@pytest.mark.parametrize(
    ("scheduler", "step_kwargs", "named"),
    [
        (DDPMScheduler(**{**TRAIN, "prediction_type": "v_prediction"}), {}, "prediction_type='v_prediction'"),
        (DDPMScheduler(**TRAIN, variance_type="learned_range"), {}, "variance_type='learned_range'"),
        (DDPMScheduler(**TRAIN, thresholding=True), {}, "thresholding=True"),
        (DDPMScheduler(**TRAIN), {"eta": 1.0}, r"options \['eta'\]"),
        (DDIMScheduler(**TRAIN), {"eta": 1.0, "variance_noise": torch.zeros(1)}, r"options \['variance_noise'\]"),
        (DDIMScheduler(**{**TRAIN, "prediction_type": "sample"}), {}, "sample-predicting model with clip_sample"),
        (DPMSolverMultistepScheduler(**TRAIN, algorithm_type="sde-dpmsolver++"), {}, "sde-dpmsolver.. of order 2"),
        (DPMSolverMultistepScheduler(**TRAIN, solver_order=3), {}, "order 3"),
        (PNDMScheduler(**TRAIN), {}, "PNDMScheduler"),
        (EulerDiscreteScheduler(**TRAIN), {}, "EulerDiscreteScheduler"),
    ],
)
def test_what_is_not_supported_is_named(scheduler, step_kwargs, named):
    with pytest.raises(UnsupportedSolver, match=f"{named}.*use runtime=reference"):
        solver_from_scheduler(scheduler, 10, step_kwargs)


def test_a_scheduler_that_gives_nan_is_refused():
    """diffusers' DPM-Solver++ divides zero by zero where two of its timesteps coincide."""
    scheduler = DPMSolverMultistepScheduler(**TRAIN)
    sampled = DiffusionSampler(Toy(), scheduler, 100)(torch.zeros(1, 4, 2), None, None, torch.Generator().manual_seed(0))
    assert torch.isnan(sampled).all()
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler with 100 steps gives NaN or infinity at step .*fewer steps"):
        solver_from_scheduler(scheduler, 100)
