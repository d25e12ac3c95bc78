"""One native library for all processors: each level gives the actions of `reference`, and none is picked silently."""

import copy

import pytest
import torch

from bac import accelerate
from bac.errors import Unavailable
from bac.native import build, levels
from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.reference import ReferenceSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import (
    TOLERANCE,
    error,
    needs_compiler,
    observation,
    random_schedule,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)

pytestmark = needs_compiler
#: largest difference that rounding weights and activations to 8 bits of mantissa may make in normalised units
BF16_TOLERANCE = 0.05


def usable():
    return levels.usable_levels(build.library())


def has_bfloat():
    return "bfloat" in levels.choose_level(build.library()).formats


def inputs(model, batch=3):
    generator = torch.Generator().manual_seed(1)
    return SamplerInputs(
        torch.zeros(batch, model.horizon, model.input_dim), observation=torch.randn(batch, 2, 3, generator=generator)
    )


@pytest.mark.parametrize("half", [False, True], ids=["float weights", "half weights"])
def test_every_level_gives_the_actions_of_the_reference(monkeypatch, half):
    """12 tokens of width 48 need tiles of several sizes, and panels that fill no tile."""
    model = tiny_model(half=half, n_emb=48, n_head=3, horizon=12)
    base, schedule = tiny_sampler(model, steps=4), random_schedule(model, 4, 0.5, 0)
    expected = ReferenceSampler(base, schedule)(inputs(model), seeded(0, 1, 2))
    for level in usable():
        monkeypatch.setenv("BAC_LEVEL", level.name)
        sampler = CompiledCpuSampler(base, schedule, threads=1)
        assert sampler.level.name == level.name
        assert error(sampler(inputs(model), seeded(0, 1, 2)), expected) < TOLERANCE, level.name


def test_the_most_demanding_level_is_taken_unless_another_is_named(monkeypatch):
    monkeypatch.delenv("BAC_LEVEL", raising=False)
    assert levels.choose_level(build.library()) == usable()[-1]
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    assert levels.choose_level(build.library()).name == "baseline"
    monkeypatch.setenv("BAC_LEVEL", "avx9000")
    with pytest.raises(Unavailable, match="BAC_LEVEL=avx9000 cannot run here: use baseline"):
        accelerate(tiny_policy(), runtime="compiled")


def test_bf16_moves_the_actions_a_little_and_does_so_the_same_way_in_any_batch():
    if not has_bfloat():
        pytest.skip("this processor does not multiply bfloat16")
    model = tiny_model(n_emb=48, n_head=3, horizon=12)
    base, schedule = tiny_sampler(model, "ddim", steps=4), random_schedule(model, 4, 0.5, 0)
    exact = CompiledCpuSampler(base, schedule, threads=1)(inputs(model), seeded(0, 1, 2))
    one, two, four = (CompiledCpuSampler(base, schedule, "bf16", threads=threads) for threads in (1, 2, 4))
    rounded = one(inputs(model), seeded(0, 1, 2))
    assert 0 < error(rounded, exact) < BF16_TOLERANCE
    assert one.bytes_per_weight == 2
    alone = torch.cat([one(inputs(model)[i : i + 1], seeded(i)) for i in range(3)])
    assert torch.equal(rounded, alone)
    for sampler in (two, four):
        assert torch.equal(sampler(inputs(model), seeded(0, 1, 2)), rounded)


def test_bf16_is_refused_where_the_level_lacks_it(monkeypatch):
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    with pytest.raises(Unavailable, match=r"precision=bf16 .* AVX512-BF16, .* level baseline: use precision=fp32, or"):
        accelerate(tiny_policy(), runtime="compiled", precision="bf16")


def test_a_copied_policy_keeps_its_precision():
    if not has_bfloat():
        pytest.skip("this processor does not multiply bfloat16")
    policy = tiny_policy()
    with accelerate(policy, runtime="compiled", precision="bf16") as fast:
        action = fast.predict_action(observation(), seeded(0))["action"]
        copied = copy.deepcopy(policy)
        assert copied.sampler.precision == "bf16"
        assert torch.equal(copied.predict_action(observation(), seeded(0))["action"], action)


def test_weights_of_a_format_that_the_level_lacks_are_refused_by_the_library(monkeypatch):
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    sampler = CompiledCpuSampler(tiny_sampler(tiny_model()), threads=1)
    sampler.native_model.layer[0].up.format = 2
    with pytest.raises(build.NativeError, match="weights in a format that this level lacks"):
        sampler(inputs(sampler.model, 1), seeded(0))
