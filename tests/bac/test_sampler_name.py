"""Names of samplers: short for the usual ones, different for any two that sample differently."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.sampler_name import loop_name, noise_digest, sampler_name
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import SPACINGS, timesteps_of
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from diffusion_policy.policy.schedulers import like_trained

TRAIN = {
    "num_train_timesteps": 100,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
TRAINED = DDPMScheduler(**TRAIN)


def derived(cls, **changes):
    return like_trained(TRAINED, cls, **changes)


@pytest.mark.parametrize(
    "scheduler, steps, step_kwargs, name",
    [
        (TRAINED, 100, {}, "ddpm100"),
        (derived(DDPMScheduler), 50, {}, "ddpm50"),
        (derived(DDIMScheduler), 16, {}, "ddim16"),
        (derived(DDIMScheduler), 16, {"eta": 0.0, "use_clipped_model_output": False}, "ddim16"),
        (derived(DPMSolverMultistepScheduler), 16, {}, "dpmpp16"),
        (
            like_trained(DDPMScheduler(**{**TRAIN, "variance_type": "fixed_large"}), DPMSolverMultistepScheduler),
            16,
            {},
            "dpmpp16",
        ),
        (derived(DDIMScheduler, timestep_spacing="trailing"), 16, {}, "ddim16-trailing"),
        (derived(DDIMScheduler), 16, {"eta": 0.5}, "ddim16-eta0.5"),
        (derived(DDIMScheduler), 16, {"eta": 1}, "ddim16-eta1"),
        (derived(DDIMScheduler), 16, {"use_clipped_model_output": True}, "ddim16-reclip"),
        (derived(DDPMScheduler, variance_type="fixed_large"), 100, {}, "ddpm100-fixed_large"),
        (derived(DDIMScheduler, clip_sample=False), 16, {}, "ddim16-noclip"),
        (derived(DDPMScheduler, clip_sample_range=0.5), 100, {}, "ddpm100-clip0.5"),
        (derived(DPMSolverMultistepScheduler, solver_order=1), 16, {}, "dpmpp16-order1"),
        (derived(DPMSolverMultistepScheduler, clip_sample=False), 16, {}, "dpmpp16-noclip"),
        (derived(DPMSolverMultistepScheduler, clip_sample_range=0.5), 16, {}, "dpmpp16-clip0.5"),
        (DPMSolverMultistepScheduler(num_train_timesteps=100), 16, {}, "dpmpp16-noclip"),
        (DPMSolverMultistepScheduler.from_config(TRAINED.config), 16, {}, "dpmpp16-noclip"),
        (EulerDiscreteScheduler(), 8, {}, "EulerDiscreteScheduler8"),
    ],
)
def test_usual_names(scheduler, steps, step_kwargs, name):
    assert sampler_name(scheduler, steps, step_kwargs) == name


@pytest.mark.parametrize(
    "settings, name",
    [
        (GridSettings("ancestral", timesteps_of("quadratic", 5, 100)), "ancestral5"),
        (GridSettings("ancestral", timesteps_of("even", 100, 100)), "ancestral100"),
        (GridSettings("ancestral", (92, 54, 28, 9, 4)), "ancestral5-at92_54_28_9_4"),
        (GridSettings("ancestral", (92, 26, 4), coupled=False), "ancestral3-uncoupled"),
        (GridSettings("ddim", (92, 26, 4)), "ddim3"),
        (GridSettings("ddim", (92, 26, 4), coupled=True, reclip=False, eta=0.5), "ddim3-eta0.5-noreclip-coupled"),
        (GridSettings("ddim", timesteps_of("leading", 8, 100)), "ddim8-leading"),
        (GridSettings("ddim", timesteps_of("leading", 16, 100)), "ddim16"),
        (GridSettings("ddim", timesteps_of("leading", 16, 100), reclip=True), "ddim16-reclip"),
        (GridSettings("ddim", timesteps_of("even", 16, 100)), "ddim16-even"),
        (GridSettings("dpmpp", timesteps_of("even", 8, 100), order=1), "dpmpp8-even-order1"),
        (GridSettings("dpmpp", timesteps_of("linspace", 3, 100)), "dpmpp3-at99_50_0"),
        (GridSettings("ddim", tuple(range(97, 10, -1))), "ddim87-gride752dbd2"),
    ],
)
def test_names_of_grids(settings, name):
    assert loop_name(GridLoop(DiffusionSampler(FakeModel(), TRAINED, 100), settings), TRAINED) == name


def test_a_fitted_sampler_has_a_name_of_its_own():
    own = DiffusionSampler(FakeModel(), TRAINED, 100)
    plain = GridLoop(own, GridSettings("ancestral", (92, 26, 4)))
    fitted = GridLoop(own, GridSettings("ancestral", (92, 26, 4), scalars=(plain.table * 1.01).tolist()))
    assert re.fullmatch("ancestral3-fitted[0-9a-f]{8}", loop_name(fitted)) and loop_name(plain) == "ancestral3"


def test_the_grids_of_diffusers_have_the_names_that_its_schedulers_have():
    own = DiffusionSampler(FakeModel(), TRAINED, 100)
    for spacing in ("leading", "linspace", "trailing"):
        for steps in (4, 9, 10, 30, 100):
            settings = GridSettings("ddim", timesteps_of(spacing, steps, 100), reclip=False, eta=0.5)
            grid, scheduler = GridLoop(own, settings), derived(DDIMScheduler, timestep_spacing=spacing)
            theirs = DiffusionSampler(own.model, scheduler, steps, {"eta": 0.5})
            assert torch.allclose(samples(grid), samples(theirs), atol=1e-5)
            assert steps == 100 or loop_name(grid) == loop_name(theirs)


@settings(max_examples=100)
@given(data=st.data())
def test_grids_that_sample_differently_have_different_names(data):
    own = DiffusionSampler(FakeModel(), TRAINED, 100)
    grids = [timesteps_of(rule, 4, 100) for rule in SPACINGS] + [(80, 60, 33, 2)]
    loops = []
    for _ in range(2):
        kind = data.draw(st.sampled_from(("ancestral", "ddim", "dpmpp")))
        options = {
            "ancestral": {"coupled": data.draw(st.booleans())},
            "ddim": {name: data.draw(st.booleans()) for name in ("coupled", "reclip")}
            | {"eta": data.draw(st.sampled_from((0.0, 0.3)))},
            "dpmpp": {"order": data.draw(st.sampled_from((1, 2)))},
        }[kind]
        loops.append(GridLoop(own, GridSettings(kind, data.draw(st.sampled_from(grids)), **options)))
    names = [loop_name(loop) for loop in loops]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in names)
    assert (names[0] == names[1]) == (loops[0].settings == loops[1].settings)


def test_few_steps_of_diffusers_name_their_spacing():
    assert sampler_name(derived(DDIMScheduler), 9) == "ddim9-leading"
    assert sampler_name(derived(DDIMScheduler, timestep_spacing="trailing"), 9) == "ddim9-trailing"
    assert sampler_name(derived(DDIMScheduler), 10) == "ddim10"


def test_the_noise_schedule_shows_only_where_it_is_not_the_checkpoints():
    other = DDPMScheduler(**{**TRAIN, "num_train_timesteps": 50})
    assert sampler_name(other, 50) == sampler_name(other, 50, trained=other) == "ddpm50"
    assert sampler_name(derived(DDIMScheduler), 16, trained=TRAINED) == "ddim16"
    assert sampler_name(other, 50, trained=TRAINED) == "ddpm50-num_train_timesteps50"
    assert (
        sampler_name(derived(DDIMScheduler, beta_schedule="linear"), 16, trained=TRAINED)
        == "ddim16-beta_schedule_is_linear"
    )
    assert (
        sampler_name(derived(DDIMScheduler, prediction_type="sample"), 16, trained=TRAINED)
        == "ddim16-prediction_type_is_sample"
    )
    altered = derived(DDIMScheduler)
    altered.betas = altered.betas * 0.5
    assert sampler_name(altered, 16, trained=TRAINED).startswith("ddim16-betas_")
    lists = [
        derived(DDIMScheduler, trained_betas=[b / 100 for b in range(1, 101)]),
        derived(DDIMScheduler, trained_betas=[0.01] * 100),
    ]
    names = {sampler_name(scheduler, 16, trained=TRAINED) for scheduler in lists}
    assert len(names) == 2 and all("trained_betas_like_" in name for name in names)


def test_the_digest_is_of_the_noise_schedule_alone():
    assert (
        noise_digest(TRAINED)
        == noise_digest(derived(DDIMScheduler, clip_sample=False))
        == noise_digest(derived(DPMSolverMultistepScheduler))
    )
    others = [
        DDPMScheduler(**{**TRAIN, **change})
        for change in (
            {"num_train_timesteps": 50},
            {"beta_end": 0.03},
            {"beta_schedule": "linear"},
            {"prediction_type": "sample"},
            {"rescale_betas_zero_snr": True},
            {"trained_betas": [0.01] * 100},
            {"trained_betas": [0.02] * 100},
        )
    ]
    assert len({noise_digest(scheduler) for scheduler in (TRAINED, *others)}) == 8


def test_a_class_of_ones_own_never_takes_a_known_name():
    own = type("DDIMScheduler", (DDPMScheduler,), {})
    name = sampler_name(own(**TRAIN), 16)
    assert name != "ddim16" and re.fullmatch(r"[A-Za-z0-9._-]+", name)


OPTIONS = {
    DDPMScheduler: {
        "variance_type": ["fixed_small", "fixed_small_log", "fixed_large"],
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 0.5],
        "timestep_spacing": ["leading", "trailing", "linspace"],
        "steps_offset": [0, 1],
        "thresholding": [False, True],
        "dynamic_thresholding_ratio": [0.995, 0.5],
        "sample_max_value": [1.0, 2.0],
    },
    DDIMScheduler: {
        "clip_sample": [True, False],
        "clip_sample_range": [1.0, 0.5],
        "timestep_spacing": ["leading", "trailing", "linspace"],
        "steps_offset": [0, 1],
        "set_alpha_to_one": [True, False],
        "thresholding": [False, True],
        "dynamic_thresholding_ratio": [0.995, 0.5],
        "sample_max_value": [1.0, 2.0],
    },
    DPMSolverMultistepScheduler: {
        "solver_order": [2, 1, 3],
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
        "solver_type": ["midpoint", "heun"],
        "lower_order_final": [True, False],
        "euler_at_final": [False, True],
        "use_karras_sigmas": [False, True],
        "timestep_spacing": ["linspace", "leading", "trailing"],
        "lambda_min_clipped": [-float("inf"), -5.1],
    },
}
STEP = {DDIMScheduler: {"eta": [0.0, 0.5, 1.0], "use_clipped_model_output": [False, True]}}


@st.composite
def pairs(draw, cls):
    """Two samplers that differ in at most two options."""
    values = {**OPTIONS[cls], **STEP.get(cls, {}), "steps": [3, 4]}
    first = {name: draw(st.sampled_from(choices)) for name, choices in values.items()}
    changed = draw(st.lists(st.sampled_from(list(values)), max_size=2))
    return [
        sampler_of(cls, chosen)
        for chosen in (first, {**first, **{name: draw(st.sampled_from(values[name])) for name in changed}})
    ]


def sampler_of(cls, chosen):
    changes, step_kwargs = ({name: chosen[name] for name in group} for group in (OPTIONS[cls], STEP.get(cls, {})))
    return DiffusionSampler(FakeModel(), derived(cls, **changes), chosen["steps"], step_kwargs)


class FakeModel(torch.nn.Module):
    """Some smooth function of sample and timestep."""

    def forward(self, x, timestep, cond):
        return torch.sin(3 * x + 0.1 * float(timestep)) + 0.3 * x.roll(1, -1)


def samples(sampler):
    return sampler(SamplerInputs(torch.zeros(1, 4, 3)), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cls", list(OPTIONS))
@settings(max_examples=150)
@given(data=st.data())
def test_samplers_that_sample_differently_have_different_names(cls, data):
    first, second = data.draw(pairs(cls))
    names = [sampler_name(item.scheduler, item.num_inference_steps, item.step_kwargs) for item in (first, second)]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in names)
    if names[0] == names[1]:
        assert torch.equal(samples(first), samples(second))


@settings(max_examples=100)
@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True))
def test_no_two_numbers_share_a_tag(a, b):
    names = {sampler_name(derived(DDIMScheduler), 16, {"eta": value}) for value in (a, b)}
    assert len(names) == len({a, b})
