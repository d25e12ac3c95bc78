"""`planned` and `compiled` give the actions of `reference`: over random models, samplers, schedules and inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.denoiser import model_blocks
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule
from bac.solver import COLUMNS, solver_of
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import (
    FAST,
    SAMPLERS,
    TOLERANCE,
    error,
    hoisting_runtime,
    observation,
    random_schedule,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)

examples = settings(max_examples=120)


@st.composite
def models(draw):
    form = draw(st.sampled_from(["observations", "observations", "time only", "encoder only"]))
    horizon, width = draw(st.integers(4, 9)), draw(st.integers(1, 5))
    n_obs_steps = draw(st.integers(1, 3))
    return tiny_model(
        seed=draw(st.integers(0, 10**6)),
        half=draw(st.booleans()),
        horizon=horizon,
        n_obs_steps=n_obs_steps,
        input_dim=width,
        output_dim=width,
        cond_dim=draw(st.integers(1, 4)) if form == "observations" else 0,
        n_layer=draw(st.integers(1, 3)),
        n_head=draw(st.sampled_from([2, 4])),
        n_emb=draw(st.sampled_from([32, 48])),
        causal_attn=draw(st.booleans()),
        time_as_cond=form != "encoder only",
        n_cond_layers=0 if form == "encoder only" else draw(st.sampled_from([0, 0, 1, 2])),
    )


@st.composite
def inputs(draw, model):
    """What samplers take."""
    batch = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (batch, model.horizon, model.input_dim)
    sizes = (batch, model.n_obs_steps, model.cond_dim)
    encoded = torch.randn(sizes, generator=generator) if model.obs_as_cond else None
    if draw(st.booleans()):
        return SamplerInputs(torch.zeros(shape), observation=encoded)
    known = torch.rand(shape, generator=generator) * 2 - 1
    return SamplerInputs(known, torch.rand(shape, generator=generator) < 0.3, encoded)


@st.composite
def noise_sources(draw, batch):
    """A function that gives the same generators whenever it is called."""
    seed = draw(st.integers(0, 10**6))
    single, per_sample = (lambda: seeded(seed)[0]), (lambda: seeded(*range(seed, seed + batch)))
    return draw(st.sampled_from([single, per_sample]))


def rounding(base) -> float:
    """How far rounding alone may move a sample.

    Near pure noise, alpha divides an error of the model's output by 0.0005, which is final where a coarse grid steps
    from there straight to the clean sample.
    """
    m_gain, to_x0 = (solver_of(base).table[:, COLUMNS.index(name)] for name in ("m_gain", "to_x0"))
    return max(TOLERANCE, 1e-6 * abs(m_gain * to_x0).max())


@hoisting_runtime
@examples
@given(st.data())
def test_equal_to_reference(runtime, data):
    model = data.draw(models())
    steps = data.draw(st.integers(1, 12))
    base = tiny_sampler(model, data.draw(st.sampled_from(sorted(SAMPLERS))), steps)
    density = data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]))
    schedule = random_schedule(model, steps, density, data.draw(st.integers(0, 10**6)))
    drawn = data.draw(inputs(model))
    generators = data.draw(noise_sources(len(drawn)))
    expected = ReferenceSampler(base, schedule)(drawn, generators())
    kept = drawn.known.clone()
    got = FAST[runtime](base, schedule)(drawn, generators())
    assert error(got, expected) < rounding(base)
    assert torch.equal(drawn.known, kept)


@hoisting_runtime
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(name, runtime):
    model = tiny_model()
    base, schedule = tiny_sampler(model, name), random_schedule(model, 10, 0.5, 3)
    arguments = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    expected = ReferenceSampler(base, schedule)(arguments, seeded(0, 1))
    assert error(FAST[runtime](base, schedule)(arguments, seeded(0, 1)), expected) < TOLERANCE


def test_weights_are_large_enough_for_every_block_to_matter():
    """Otherwise the test above would show nothing."""
    model = tiny_model()
    base, blocks = tiny_sampler(model), model_blocks(model)
    full = Schedule.full(blocks, 10)
    inputs = SamplerInputs(torch.zeros(1, 6, 2), observation=torch.ones(1, 2, 3))
    expected = ReferenceSampler(base, full)(inputs, seeded(0))
    for block in blocks:
        steps = {name: range(10) if name != block else [0] for name in blocks}
        got = PlannedSampler(base, Schedule.from_steps(steps, 10))(inputs, seeded(0))
        assert error(got, expected) > 1000 * TOLERANCE, block


@hoisting_runtime
def test_full_policy_without_a_schedule(runtime):
    model = tiny_model(horizon=9, n_layer=3)
    base = tiny_sampler(model, "ddpm", 100)
    arguments = SamplerInputs(torch.zeros(3, 9, 2), observation=torch.randn(3, 2, 3))
    assert error(FAST[runtime](base)(arguments, seeded(0)[0]), base(arguments, seeded(0)[0])) < TOLERANCE


@hoisting_runtime
@pytest.mark.parametrize(
    "options",
    [
        {"obs_as_cond": True},
        {"chunk_only": True},
        {"obs_as_cond": False},
        {"obs_as_cond": False, "time_as_cond": False, "causal_attn": False},
    ],
    ids=str,
)
def test_policies(runtime, options):
    """Conditioning by tokens, the executed chunk alone, inpainting in the decoder and in the encoder-only form."""
    policy = tiny_policy(**options)
    schedule = random_schedule(policy.model, 10, 0.4, 0)
    own = policy.sampler
    policy.sampler = ReferenceSampler(own, schedule)
    expected = policy.predict_action(observation(3), seeded(0, 1, 2))
    policy.sampler = FAST[runtime](own, schedule)
    got = policy.predict_action(observation(3), seeded(0, 1, 2))
    assert got.keys() == expected.keys()
    for key in expected:
        assert error(got[key], expected[key]) < TOLERANCE, key


@hoisting_runtime
def test_global_noise_is_drawn_in_the_order_of_the_reference(runtime):
    model = tiny_model()
    base = tiny_sampler(model)
    arguments = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    fast = FAST[runtime](base)
    torch.manual_seed(5)
    expected, after = base(arguments), torch.rand(())
    torch.manual_seed(5)
    assert error(fast(arguments), expected) < TOLERANCE
    assert torch.rand(()) == after


def test_shorter_trajectories_than_the_model_was_made_for():
    model = tiny_model()
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.3, 0)
    arguments = SamplerInputs(torch.zeros(2, 4, 2), observation=torch.randn(2, 2, 3))
    expected = ReferenceSampler(base, schedule)(arguments, seeded(0, 1))
    assert error(PlannedSampler(base, schedule)(arguments, seeded(0, 1)), expected) < TOLERANCE


@hoisting_runtime
def test_nan_weights_are_not_hidden(runtime):
    model = tiny_model()
    with torch.no_grad():
        model.decoder.layers[1].self_attn.in_proj_weight[0, 0] = float("nan")
    inputs = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.zeros(2, 2, 3))
    out = FAST[runtime](tiny_sampler(model))(inputs, seeded(0, 1))
    assert torch.isnan(out).all()


@pytest.mark.parametrize("scale", [1e-3, 30.0, 300.0])
@hoisting_runtime
def test_flat_and_sharp_attention(runtime, scale):
    """Scores from nearly equal to so far apart that the softmax is one-hot."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.self_attn.in_proj_weight[: model.n_emb] *= scale
            layer.multihead_attn.in_proj_weight[: model.n_emb] *= scale
    base = tiny_sampler(model, steps=1)
    arguments = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    # scores are sums whose rounding grows with them, and the softmax turns an absolute error into a relative one
    tolerance = TOLERANCE * max(1.0, scale)
    assert error(FAST[runtime](base)(arguments, seeded(0, 1)), base(arguments, seeded(0, 1))) < tolerance


def test_bf16_is_close_but_not_equal():
    model = tiny_model()
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.4, 0)
    arguments = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    expected = ReferenceSampler(base, schedule)(arguments, seeded(0, 1))
    got = PlannedSampler(base, schedule, "bf16")(arguments, seeded(0, 1))
    assert 1e-6 < error(got, expected) < 0.2
