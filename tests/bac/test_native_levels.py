"""One native library for all processors: each level gives the actions of `reference`, and none is picked silently."""

import copy

import pytest
import torch

from bac import accelerate
from bac.errors import Unavailable
from bac.native import build, levels
from bac.native.structs import FORMATS
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
#: largest difference that rounding weights and activations to 8 bits may make in normalised units
ROUNDING = {"bf16": 0.05, "int8": 0.2}


def usable():
    return levels.usable_levels(build.library())


def need(precision):
    if precision not in levels.choose_level(build.library()).precisions:
        pytest.skip(f"this processor does not multiply {precision}")


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


@pytest.mark.parametrize(("precision", "size"), [("bf16", 2), ("int8", 1)])
def test_rounding_moves_the_actions_a_little_and_does_so_the_same_way_in_any_batch(precision, size):
    need(precision)
    model = tiny_model(n_emb=48, n_head=3, horizon=12)
    base, schedule = tiny_sampler(model, "ddim", steps=4), random_schedule(model, 4, 0.5, 0)
    exact = CompiledCpuSampler(base, schedule, threads=1)(inputs(model), seeded(0, 1, 2))
    one, two, four = (CompiledCpuSampler(base, schedule, precision, threads=threads) for threads in (1, 2, 4))
    rounded = one(inputs(model), seeded(0, 1, 2))
    assert 0 < error(rounded, exact) < ROUNDING[precision]
    assert one.bytes_per_weight == size
    alone = torch.cat([one(inputs(model)[i : i + 1], seeded(i)) for i in range(3)])
    assert torch.equal(rounded, alone)
    for sampler in (two, four):
        assert torch.equal(sampler(inputs(model), seeded(0, 1, 2)), rounded)
    some = CompiledCpuSampler(base, schedule, precision, threads=1, tokens=7)
    assert torch.equal(some(inputs(model), seeded(0, 1, 2)), rounded[:, :7])


def test_bytes_give_the_same_actions_at_every_level_that_multiplies_them(monkeypatch):
    """Their sums are exact; only what is float32 rounds differently."""
    need("int8")
    model = tiny_model(n_emb=48, n_head=3, horizon=12)
    base, actions = tiny_sampler(model, steps=4), []
    for level in usable():
        if "int8" in level.precisions:
            monkeypatch.setenv("BAC_LEVEL", level.name)
            actions.append(CompiledCpuSampler(base, precision="int8", threads=1)(inputs(model), seeded(0, 1, 2)))
    for action in actions[1:]:
        assert error(action, actions[0]) < 0.1 * ROUNDING["int8"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bytes_do_not_hide_what_is_not_finite(value):
    need("int8")
    model = tiny_model()
    sampler = CompiledCpuSampler(tiny_sampler(model, "ddim", steps=4), precision="int8", threads=1)
    wrong = inputs(model, 2)
    wrong.observation[1, 0, 0] = value
    action = sampler(wrong, seeded(0, 1))
    assert action[0].isfinite().all() and action[1].isnan().all()


def test_bytes_hold_rows_and_channels_that_are_constant():
    need("int8")
    model = tiny_model()
    for layer in model.trunk.layers:
        layer.linear1.weight.data[::2] = 0
        layer.norm1.weight.data.zero_()  # every token of a row is its bias then
    base = tiny_sampler(model, "ddim", steps=4)
    exact, rounded = (
        CompiledCpuSampler(base, precision=p, threads=1)(inputs(model), seeded(0, 1, 2)) for p in ("fp32", "int8")
    )
    assert error(rounded, exact) < ROUNDING["int8"]


@pytest.mark.parametrize(("precision", "unit"), [("bf16", "AVX512-BF16"), ("int8", "VNNI")])
def test_a_precision_is_refused_where_the_level_lacks_it(monkeypatch, precision, unit):
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    message = rf"precision={precision} .* processor with {unit}.* level baseline: use precision=fp32"
    with pytest.raises(Unavailable, match=message):
        accelerate(tiny_policy(), runtime="compiled", precision=precision)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_copied_policy_keeps_its_precision(precision):
    need(precision)
    policy = tiny_policy()
    with accelerate(policy, runtime="compiled", precision=precision, verify=True) as fast:
        action = fast.predict_action(observation(), seeded(0))["action"]
        assert f"runtime compiled in {precision}: 1 chunks" in str(fast.report())
        copied = copy.deepcopy(policy)
        assert copied.sampler.precision == precision
        assert torch.equal(copied.predict_action(observation(), seeded(0))["action"], action)


def test_weights_of_a_format_that_the_level_lacks_are_refused_by_the_library(monkeypatch):
    monkeypatch.setenv("BAC_LEVEL", "baseline")
    sampler = CompiledCpuSampler(tiny_sampler(tiny_model()), threads=1)
    for form, message in (("bfloat", "weights in a format that this level lacks"), ("byte", "feed-forward weights")):
        sampler.native_model.layer[0].up.format = FORMATS[form]  # bytes without the scales that they need
        with pytest.raises(build.NativeError, match=message):
            sampler(inputs(sampler.model, 1), seeded(0))
