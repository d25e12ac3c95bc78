"""The CUDA graph runtime; what it does around the graph is tested on the CPU, with one that runs the loop again."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bac import accelerate
from bac.runtime.choose import make_sampler
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import (
    SAMPLERS,
    error,
    hoisting_runtime,
    observation,
    random_schedule,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)

FORMS = {
    "decoder": {},
    "condition encoder": {"n_cond_layers": 1},
    "time only": {"cond_dim": 0},
    "encoder only": {"cond_dim": 0, "time_as_cond": False},
}
every_form = pytest.mark.parametrize("form", FORMS)


def case(form, batch=2, seed=0, device="cpu"):
    """Sampler inputs, inpainting where there are no observations."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(batch, 6, 2, generator=generator).to(device)
    mask = (torch.rand(batch, 6, 2, generator=generator) < 0.3).to(device)
    encoded = torch.randn(batch, 2, 3, generator=generator).to(device)
    if "cond_dim" in FORMS[form]:
        return SamplerInputs(known, mask)
    return SamplerInputs(torch.zeros(batch, 6, 2, device=device), observation=encoded)


# ---- without a GPU ---------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("name", ["ddpm", "ddim stochastic", "dpm-solver++"])
def test_loop_reads_noise_from_one_buffer(form, name):
    """The graph reads noise [K, B, T, D] from a fixed buffer; the planned runtime passes a list."""
    model = tiny_model(**FORMS[form])
    sampler = PlannedSampler(tiny_sampler(model, name), random_schedule(model, 10, 0.3, 0))
    inputs = case(form)
    with torch.no_grad():
        initial, noise = sampler.hoisted.draw(inputs.known, seeded(0)[0])
        buffer = torch.stack([torch.full_like(inputs.known, float("nan")) if draw is None else draw for draw in noise])
        got = sampler.loop.run(initial, buffer, inputs, sampler.hoisted.memory(inputs))
    assert torch.equal(got, sampler(inputs, seeded(0)[0]))


class ForbiddenWhileCapturing(TorchDispatchMode):
    """Operations that wait for the GPU or whose result's size depends on data."""

    NAMES = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "lift_fresh",
        "is_nonzero",
        "equal",
        "unique",
        "rand",
        "multinomial",
    )

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function._overloadpacket.__name__
        assert not name.startswith(self.NAMES), f"{name} cannot be captured"
        return function(*arguments, **(keywords or {}))


@every_form
def test_captured_part_does_not_synchronise_or_draw(form):
    model = tiny_model(**FORMS[form])
    sampler = PlannedSampler(tiny_sampler(model), random_schedule(model, 10, 0.3, 0))
    inputs = case(form)
    with torch.no_grad():
        initial, noise = sampler.hoisted.draw(inputs.known, seeded(0)[0])
        with ForbiddenWhileCapturing():
            sampler.loop.run(initial, noise, inputs, sampler.hoisted.memory(inputs))


@every_form
def test_captured_part_touches_one_device_only(form):
    """On the `meta` device, an operation that mixes in a CPU tensor fails."""
    model = tiny_model(**FORMS[form]).to("meta")
    sampler = PlannedSampler(tiny_sampler(model), random_schedule(model, 10, 0.3, 0))
    out = sampler(case(form, device="meta"))
    assert out.device.type == "meta" and out.shape == (2, 6, 2)


@pytest.fixture
def on_cpu(graphs_on_cpu):
    """CudaGraphSampler with the stand-in graph."""
    return CudaGraphSampler


@every_form
@pytest.mark.parametrize("name", ["ddpm", "ddim", "ddim stochastic"])
def test_replays_equal_planned(on_cpu, form, name):
    """Interleaved batch sizes, new inputs at every call, results that later calls leave alone."""
    model = tiny_model(**FORMS[form])
    base, schedule = tiny_sampler(model, name), random_schedule(model, 10, 0.3, 0)
    graphs, planned = on_cpu(base, schedule), PlannedSampler(base, schedule)
    calls = [(batch, seed) for seed, batch in enumerate([2, 3, 2, 2, 3])]
    results = [graphs(case(form, *call), seeded(call[1])[0]) for call in calls]
    for call, result in zip(calls, results):
        assert torch.equal(result, planned(case(form, *call), seeded(call[1])[0]))
    assert len(graphs.graphs) == 2 and graphs.chunks == 5
    assert graphs.block_updates == {block: 5 * count for block, count in schedule.updates_per_block.items()}


@pytest.mark.parametrize("form", ["decoder", "condition encoder", "time only"])
@pytest.mark.parametrize(("name", "reuse"), [("ddpm", "hold"), ("ddim", "hold"), ("ddim", "extrapolate")])
def test_replays_of_fewer_tokens_and_of_extrapolated_outputs_equal_planned(on_cpu, form, name, reuse):
    model = tiny_model(**FORMS[form])
    base = tiny_sampler(model, name)
    schedule = dataclasses.replace(random_schedule(model, 10, 0.3, 0), reuse=reuse)
    graphs, planned = on_cpu(base, schedule, tokens=4), PlannedSampler(base, schedule, tokens=4)
    for batch, seed in [(2, 0), (3, 1), (2, 2)]:
        result = graphs(case(form, batch, seed), seeded(seed)[0])
        assert result.shape == (batch, 4, 2)
        assert torch.equal(result, planned(case(form, batch, seed), seeded(seed)[0]))


def test_extrapolating_does_not_synchronise():
    model = tiny_model()
    schedule = dataclasses.replace(random_schedule(model, 10, 0.3, 0), reuse="extrapolate")
    sampler, inputs = PlannedSampler(tiny_sampler(model, "ddim"), schedule, tokens=4), case("decoder").head(4)
    with torch.no_grad():
        initial, noise = sampler.hoisted.draw(inputs.known, seeded(0)[0])
        with ForbiddenWhileCapturing():
            sampler.loop.run(initial, noise, inputs, sampler.hoisted.memory(inputs))


def test_inference_mode_may_change_between_calls(on_cpu):
    model = tiny_model()
    graphs = on_cpu(tiny_sampler(model), None)
    with torch.inference_mode():
        first = graphs(case("decoder"), seeded(0)[0])
    second = graphs(case("decoder"), seeded(0)[0])
    with torch.inference_mode():
        third = graphs(case("decoder"), seeded(0)[0])
    assert torch.equal(first, second) and torch.equal(second, third)


@hoisting_runtime
def test_everything_in_inference_mode(runtime):
    with torch.inference_mode():
        policy = tiny_policy()
        plain = policy.predict_action(observation(), seeded(0))["action"]
        with accelerate(policy, runtime=runtime) as fast:
            assert error(fast.predict_action(observation(), seeded(0))["action"], plain) < 1e-5
    with accelerate(policy, runtime=runtime) as fast:
        assert error(fast.predict_action(observation(), seeded(0))["action"], plain.clone()) < 1e-5


def test_cpu_policies_are_refused():
    with pytest.raises(ValueError, match="need a policy on a GPU, this one is on cpu"):
        CudaGraphSampler(tiny_sampler(tiny_model()))


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@every_form
@pytest.mark.parametrize("name", SAMPLERS)
def test_gpu_runtimes_equal_the_reference(form, name):
    """CPU generators give the same noise on every device; two batch sizes are captured and replayed in turn."""
    model = tiny_model(**FORMS[form]).cuda()
    base, schedule = tiny_sampler(model, name), random_schedule(model, 10, 0.3, 0)
    reference = ReferenceSampler(base, schedule)
    for runtime in ("planned", "compiled"):
        sampler = make_sampler(base, schedule, runtime)
        for batch, seed in [(2, 0), (3, 1), (2, 2), (3, 3)]:
            inputs = case(form, batch, seed, "cuda")
            one_for_all, one_each = (lambda seed=seed: seeded(seed)[0]), (lambda batch=batch: seeded(*range(batch)))
            for generator in (one_for_all, one_each):
                expected = reference(inputs, generator())
                assert error(sampler(inputs, generator()), expected) < 2e-5, runtime


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["decoder", "condition encoder", "time only"])
def test_gpu_fewer_tokens_and_extrapolated_outputs(form):
    model = tiny_model(**FORMS[form]).cuda()
    base = tiny_sampler(model, "ddim")
    schedule = dataclasses.replace(random_schedule(model, 10, 0.3, 0), reuse="extrapolate")
    expected = ReferenceSampler(base, schedule)(case(form, device="cuda"), seeded(0)[0])
    for runtime in ("planned", "compiled"):
        sampler = make_sampler(base, schedule, runtime, tokens=4)
        for _ in range(2):  # a graph's buffers are those of the call before
            got = sampler(case(form, device="cuda"), seeded(0)[0])
            assert error(got, expected[:, :4].contiguous()) < 1e-4, runtime


@pytest.mark.gpu
def test_gpu_global_noise():
    """Without a generator the GPU's own is used, in the order of the reference, and keeps advancing."""
    model = tiny_model().cuda()
    base = tiny_sampler(model)
    sampler, inputs = make_sampler(base, None, "compiled"), case("decoder", device="cuda")
    sampler(inputs)
    torch.manual_seed(0)
    expected = [base(inputs) for _ in range(2)]
    torch.manual_seed(0)
    got = [sampler(inputs) for _ in range(2)]
    assert all(error(a, b) < 2e-5 for a, b in zip(got, expected))
    assert not torch.equal(got[0], got[1])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gpu_low_precision_is_close(precision):
    model = tiny_model().cuda()
    base, inputs = tiny_sampler(model), case("decoder", device="cuda")
    expected = base(inputs, seeded(0)[0])
    assert 1e-6 < error(make_sampler(base, None, "compiled", precision)(inputs, seeded(0)[0]), expected) < 0.2


@pytest.mark.gpu
def test_gpu_policy_and_changed_weights():
    policy = tiny_policy().cuda()
    plain = policy.predict_action(observation(2), seeded(0, 1))["action"]
    with accelerate(policy, runtime="compiled") as fast:
        assert error(fast.predict_action(observation(2), seeded(0, 1))["action"], plain) < 2e-5
        assert fast.report().prepare_seconds > 0
        policy.load_state_dict(tiny_policy(seed=1).state_dict())
        with pytest.raises(RuntimeError, match="weights changed"):
            fast.predict_action(observation(2))
