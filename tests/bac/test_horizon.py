"""Denoising only the tokens that reach the executed actions: the same actions, wherever that is exact."""

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from bac import accelerate
from bac.errors import Unavailable
from bac.flops import denoiser_cost
from bac.horizon import Tokens, executed_tokens, why_all_tokens
from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.schedule import Schedule
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.test_runtimes import inputs, models, noise_sources, rounding
from tests.bac.tiny_policies import (
    COMPILED,
    FAST,
    RUNTIMES,
    SAMPLERS,
    TOLERANCE,
    act,
    error,
    every_runtime,
    needs_compiler,
    observation,
    random_schedule,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)


@st.composite
def cut(draw):
    """(loop, schedule, inputs, function that gives generators, tokens) of a causal model."""
    model = draw(models().filter(lambda model: model.mask is not None and not model.encoder_only))
    steps = draw(st.integers(1, 8))
    base = tiny_sampler(model, draw(st.sampled_from(sorted(SAMPLERS))), steps)
    schedule = random_schedule(model, steps, draw(st.sampled_from([0.1, 0.4, 1.0])), draw(st.integers(0, 10**6)))
    drawn = draw(inputs(model))
    return base, schedule, drawn, draw(noise_sources(len(drawn))), draw(st.integers(1, model.horizon))


@needs_compiler
@settings(max_examples=80)
@given(cut())
def test_compiled_gives_the_same_actions_bit_for_bit(case):
    base, schedule, drawn, generators, tokens = case
    whole = FAST["compiled"](base, schedule)(drawn, generators())
    assert torch.equal(FAST["compiled"](base, schedule, tokens=tokens)(drawn, generators()), whole[:, :tokens])


@pytest.mark.parametrize("runtime", ["reference", "planned"])
@settings(max_examples=80)
@given(cut())
def test_eager_gives_the_same_actions_to_rounding(runtime, case):
    """PyTorch's products round differently with fewer rows; the later tokens themselves have no part in it."""
    base, schedule, drawn, generators, tokens = case
    whole = RUNTIMES[runtime](base, schedule)(drawn, generators())
    got = RUNTIMES[runtime](base, schedule, tokens=tokens)(drawn, generators())
    assert error(got, whole[:, :tokens].contiguous()) < rounding(base)


@pytest.mark.parametrize("runtime", ["reference", "planned", COMPILED])
def test_later_noise_has_no_part_in_it(runtime):
    """Bit for bit in every runtime: the same noise for the kept tokens, another for the rest.

    In the reference only the initial noise is another one: later ones are drawn by the scheduler.
    """
    base = tiny_sampler(tiny_model())

    class Other(DiffusionSampler):
        def noise(self, like, generator=None):
            drawn = super().noise(like, generator)
            drawn[:, 4:] = 7.0
            return drawn

    other = Other(base.model, DDPMScheduler(**{**dict(base.scheduler.config), "variance_type": "fixed_small"}), 10)
    drawn = SamplerInputs(torch.zeros(3, 6, 2), observation=torch.randn(3, 2, 3))
    got = make_sampler(other, None, runtime, tokens=4)(drawn, seeded(0, 1, 2))
    assert torch.equal(got, make_sampler(base, None, runtime, tokens=4)(drawn, seeded(0, 1, 2)))


@every_runtime
def test_noise_shared_with_the_full_policy_is_that_of_all_tokens(runtime):
    policy = tiny_policy(steps=100)
    base = GridLoop(policy.sampler, GridSettings("ancestral", (90, 40, 8), coupled=True))
    drawn = SamplerInputs(torch.zeros(3, 6, 2), observation=torch.randn(3, 2, 3))
    whole, got = (make_sampler(base, None, runtime, tokens=tokens)(drawn, seeded(0, 1, 2)) for tokens in (None, 5))
    assert error(got, whole[:, :5].contiguous()) < TOLERANCE
    if runtime == "compiled":
        assert torch.equal(got, whole[:, :5])


# ---- where it is exact -----------------------------------------------------------------------------------------------


def test_executed_tokens_end_with_the_chunk():
    policy = tiny_policy()
    assert (policy.chunk.stop, executed_tokens(policy), why_all_tokens(policy)) == (5, 5, None)
    policy.n_action_steps = 2
    assert executed_tokens(policy) == 3
    assert executed_tokens(tiny_policy(n_cond_layers=1)) == 5


def leaky():
    policy = tiny_policy()
    policy.model.mask[2, 5] = 0
    return policy


def thresholding():
    policy = tiny_policy()
    policy.sampler.scheduler.register_to_config(thresholding=True)
    return policy


def unknown_scheduler():
    policy = tiny_policy()
    policy.sampler.scheduler.__class__ = type("Mine", (DDPMScheduler,), {})
    return policy


def quantised():
    """Its layers scale all rows by the largest number among them."""
    policy = tiny_policy()
    return torch.ao.quantization.quantize_dynamic(policy, {torch.nn.Linear}, dtype=torch.qint8)


WHY_ALL = {
    "may let tokens depend on each other": quantised,
    "not causal": lambda: tiny_policy(causal_attn=False),
    "lets the first 5 tokens see later ones": leaky,
    "inpainting": lambda: tiny_policy(obs_as_cond=False),
    "reaches to the last one": lambda: tiny_policy(chunk_only=True),
    "thresholding": thresholding,
    "a Mine is not known": unknown_scheduler,
}


@pytest.mark.parametrize("reason", WHY_ALL)
def test_all_tokens_where_they_are_needed(reason):
    policy = WHY_ALL[reason]()
    assert executed_tokens(policy) is None and reason in why_all_tokens(policy)
    plain = policy.predict_action(observation(2), seeded(0, 1))["action_pred"]
    with accelerate(policy, runtime="reference") as fast:
        got = fast.predict_action(observation(2), seeded(0, 1))["action_pred"]
    assert torch.equal(got, plain)
    total = policy.trajectory_shape[0]
    assert f"{total} of {total} tokens: {why_all_tokens(policy)}" in str(fast.report())


@every_runtime
def test_runtimes_refuse_to_leave_out_what_is_needed(runtime):
    for tokens in (0, 7, True, 2.0):
        with pytest.raises(Unavailable, match="use 1 to 6, or None"):
            make_sampler(tiny_policy().sampler, None, runtime, tokens=tokens)
    with pytest.raises(Unavailable, match="first 3 tokens cannot be denoised alone: .* see later ones"):
        make_sampler(leaky().sampler, None, runtime, tokens=3)
    for whole in (leaky(), tiny_policy(causal_attn=False)):
        make_sampler(whole.sampler, None, runtime, tokens=6)


@every_runtime
def test_a_mask_that_is_changed_later_is_noticed(runtime):
    policy = tiny_policy()
    with accelerate(policy, runtime=runtime) as fast:
        act(fast)
        policy.model.mask[2, 5] = 0
        with pytest.raises((RuntimeError, Unavailable), match="changed after|see later ones"):
            act(fast)


# ---- accelerate() ----------------------------------------------------------------------------------------------------


@every_runtime
def test_the_horizon_that_was_asked_for(runtime):
    policy = tiny_policy()
    schedule = random_schedule(policy.model, 10, 0.4, 0)
    results = {}
    for horizon in ("executed", "full"):
        with accelerate(policy, schedule, runtime, horizon=horizon) as fast:
            results[horizon] = fast.predict_action(observation(2), seeded(0, 1))
    executed, full = results["executed"], results["full"]
    assert (executed["action_pred"].shape, full["action_pred"].shape) == ((2, 5, 2), (2, 6, 2))
    assert executed["action"].shape == full["action"].shape == (2, 4, 2)
    assert error(executed["action"], full["action"]) < 1e-6
    if runtime == "compiled":
        assert torch.equal(executed["action"], full["action"])
    assert "6 of 6 tokens: horizon=full" in str(fast.report())
    with pytest.raises(Unavailable, match="unknown horizon 'all': use 'executed' .* or 'full'"):
        accelerate(policy, schedule, runtime, horizon="all")


def test_report_counts_both_levers_apart():
    policy = tiny_policy()
    schedule = random_schedule(policy.model, 10, 0.4, 0)
    report = accelerate(policy, schedule).report()
    full = Schedule.full(schedule.blocks, 10)
    cut, whole = denoiser_cost(policy.model, 5), denoiser_cost(policy.model)
    assert report.tokens == Tokens(5, 6, None)
    assert report.gflop_per_chunk == cut.flops(schedule) / 1e9
    assert report.full_gflop_per_chunk == whole.flops(full) / 1e9
    assert report.fewer_by_tokens == whole.flops(full) / cut.flops(full) > 1
    assert report.fewer_by_schedule == cut.flops(full) / cut.flops(schedule) > 1
    assert "5 of 6 tokens: the others never reach the executed actions" in str(report)
    assert f"(tokens {report.fewer_by_tokens:.2f}x, schedule {report.fewer_by_schedule:.2f}x;" in str(report)


@every_runtime
def test_a_longer_chunk_than_was_prepared_for_is_refused(runtime):
    policy = tiny_policy()
    with accelerate(policy, runtime=runtime) as fast:
        policy.n_action_steps = 2  # fewer are among those that are denoised
        assert act(fast).shape == (1, 2, 2)
        policy.n_action_steps = 5
        for caller in (fast, policy):
            with pytest.raises(RuntimeError, match=r"chunk .*ends at token 6 .*call accelerate\(\) again"):
                act(caller)
    with accelerate(policy, runtime=runtime) as fast:
        assert act(fast).shape == (1, 5, 2)
