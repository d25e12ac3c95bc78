"""The persistent kernel in its CPU form gives the actions of `reference`; and where another one runs, that is said."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac import Schedule, accelerate
from bac.errors import Unavailable
from bac.native.errors import NativeError
from bac.native.gpu.host import HostMachine
from bac.native.gpu.packing import kept_sums
from bac.runtime import choose_cuda, persistent
from bac.runtime.persistent import PersistentSampler
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.solver import COLUMNS, solver_of
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import (
    SAMPLERS,
    TOLERANCE,
    error,
    needs_compiler,
    observation,
    random_schedule,
    scheduler_of,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """CPU forms with so many thread blocks; libraries are compiled once."""
    folder = tmp_path_factory.mktemp("kernel")
    return lambda blocks=3, **changes: HostMachine(blocks, folder=folder, **changes)


def case(model, seed=0, given=False):
    """Inputs of one sample."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, model.horizon, model.input_dim)
    seen = torch.randn(1, model.n_obs_steps, model.cond_dim, generator=generator) if model.obs_as_cond else None
    known = torch.rand(shape, generator=generator) * 2 - 1
    return SamplerInputs(known, torch.rand(shape, generator=generator) < 0.3 if given else None, seen)


# ---- the actions are those of the reference --------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.data())
def test_equal_to_reference(machine, data):
    """Over models, samplers, schedules, inpainting, formats of weights, thread blocks and room in shared memory."""
    width = data.draw(st.integers(1, 5))
    model = tiny_model(
        seed=data.draw(st.integers(0, 10**6)),
        half=data.draw(st.booleans()),
        horizon=data.draw(st.integers(4, 8)),
        n_obs_steps=data.draw(st.integers(1, 3)),
        input_dim=width,
        output_dim=width,
        cond_dim=data.draw(st.sampled_from([0, 1, 4])),
        n_layer=data.draw(st.integers(1, 3)),
        n_head=data.draw(st.sampled_from([2, 4])),
        n_emb=data.draw(st.sampled_from([32, 48])),
        causal_attn=data.draw(st.booleans()),
    )
    steps = data.draw(st.integers(1, 8))
    base = tiny_sampler(model, data.draw(st.sampled_from(sorted(SAMPLERS))), steps)
    schedule = random_schedule(
        model, steps, data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])), data.draw(st.integers(0, 99))
    )
    if solver_of(base).deterministic and data.draw(st.booleans()):
        schedule = dataclasses.replace(schedule, reuse="extrapolate")
    inputs = case(model, data.draw(st.integers(0, 10**6)), data.draw(st.booleans()))
    stand_in = machine(data.draw(st.sampled_from([1, 2, 3, 7])), shared=data.draw(st.sampled_from([32, 227])) * 1024)
    expected = ReferenceSampler(base, schedule)(inputs, seeded(1)[0])
    m_gain, to_x0 = (solver_of(base).table[:, COLUMNS.index(name)] for name in ("m_gain", "to_x0"))
    allowed = max(TOLERANCE, 1e-6 * abs(m_gain * to_x0).max())  # rounding, divided by a small alpha
    assert error(PersistentSampler(base, schedule, None, stand_in)(inputs, seeded(1)[0]), expected) < allowed


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(machine, name):
    model = tiny_model(half=True)
    base, schedule = tiny_sampler(model, name), random_schedule(model, 10, 0.5, 3)
    expected = ReferenceSampler(base, schedule)(case(model), seeded(0))
    assert error(PersistentSampler(base, schedule, None, machine())(case(model), seeded(0)), expected) < TOLERANCE


def test_fewer_tokens_and_extrapolated_outputs(machine):
    model = tiny_model()
    base = tiny_sampler(model, "ddim")
    schedule = dataclasses.replace(random_schedule(model, 10, 0.3, 0), reuse="extrapolate")
    sampler = PersistentSampler(base, schedule, 4, machine())
    for seed in range(3):  # the exchange buffers are those of the chunk before
        expected = ReferenceSampler(base, schedule)(case(model, seed), seeded(seed)[0])
        assert error(sampler(case(model, seed), seeded(seed)[0]), expected[:, :4].contiguous()) < 1e-4
    assert sampler.chunks == 3 and sampler.block_updates == {
        name: 3 * count for name, count in schedule.updates_per_block.items()
    }


@pytest.mark.parametrize("tokens", [9, 16])
def test_bundled_policy(machine, tokens):
    """Its weights are exact in half precision, and half of a small GPU's share lies outside shared memory."""
    policy = load_policy("checkpoint/pusht_lowdim/ddpm100").policy
    base = DiffusionSampler(policy.model, scheduler_of("ddim")[0], 5)
    inputs, schedule = policy.sampler_inputs(policy.random_observation(1)), random_schedule(policy.model, 5, 0.4, 0)
    sampler = PersistentSampler(base, schedule, tokens, machine())
    assert sampler.shape.half and sampler.bytes_per_weight == 2 and sampler.launch.resident < sampler.launch.share
    expected = ReferenceSampler(base, schedule, tokens=tokens)(inputs, seeded(0)[0])
    assert error(sampler(inputs, seeded(0)[0]), expected) < TOLERANCE


@pytest.mark.parametrize("changes", [{"threads": True}, {"exact": True}])
def test_other_forms_give_the_same_numbers(machine, changes):
    """A thread for each warp of each thread block, which wait as on a GPU; and sizes that are constants."""
    model = tiny_model()
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.3, 0)
    one, other = (
        PersistentSampler(base, schedule, None, machine()),
        PersistentSampler(base, schedule, None, machine(**changes)),
    )
    for seed in range(3):
        assert torch.equal(one(case(model), seeded(seed)[0]), other(case(model), seeded(seed)[0]))


def test_a_sum_of_extrapolated_outputs_is_not_kept(machine):
    """It moves on from step to step, also where no block computes."""
    model = tiny_model()
    base = tiny_sampler(model, "ddim")
    names = ReferenceSampler(base, None).schedule.blocks
    schedule = dataclasses.replace(Schedule.from_steps({name: [0, 1, 5] for name in names}, 10), reuse="extrapolate")
    expected = ReferenceSampler(base, schedule)(case(model), seeded(0)[0])
    got = PersistentSampler(base, schedule, None, machine())(case(model), seeded(0)[0])
    assert error(got, expected) < TOLERANCE


def test_steps_without_updates_take_a_kept_sum(machine):
    model = tiny_model()
    schedule = Schedule.from_steps(
        {name: [0, 4] for name in ReferenceSampler(tiny_sampler(model), None).schedule.blocks}, 10
    )
    base = tiny_sampler(model)
    sampler = PersistentSampler(base, schedule, None, machine())
    assert sorted(kept_sums(sampler.hoisted.plan).items()) == [
        ((k, 0), 2 if k in (1, 5) else 4) for k in range(10) if k not in (0, 4)
    ]
    expected = ReferenceSampler(base, schedule)(case(model), seeded(0)[0])
    assert error(sampler(case(model), seeded(0)[0]), expected) < TOLERANCE


def test_flags_begin_again_before_they_repeat(machine):
    """Numbers of 32 bits say when something was sent; after some hours of chunks they are used up."""
    model = tiny_model()
    sampler = PersistentSampler(tiny_sampler(model), random_schedule(model, 10, 0.3, 0), None, machine())
    first = sampler(case(model), seeded(0)[0])
    each = sampler.sent
    sampler.sent = 2**32 - each - 1
    assert torch.equal(sampler(case(model), seeded(0)[0]), first) and sampler.sent == 2**32 - 1
    assert torch.equal(sampler(case(model), seeded(0)[0]), first) and sampler.sent == each


def test_numbers_do_not_depend_on_the_number_of_thread_blocks(machine):
    model = tiny_model()
    samplers = [PersistentSampler(tiny_sampler(model), None, None, machine(blocks)) for blocks in (1, 3, 16)]
    first, *others = (sampler(case(model), seeded(0)[0]) for sampler in samplers)
    assert [sampler.launch.blocks for sampler in samplers] == [1, 3, 16]
    assert all(error(other, first) < 1e-6 for other in others)


# ---- which one runs --------------------------------------------------------------------------------------------------


class Graph(PlannedSampler):
    """Stands for CudaGraphSampler."""

    def __init__(self, base, schedule, precision, tokens, why):
        super().__init__(base, schedule, precision, tokens)
        self.how = f"CUDA graph, no persistent kernel: {why}"


@pytest.fixture
def choose(monkeypatch, machine):
    """cuda_sampler on a machine without a GPU."""
    monkeypatch.delenv("BAC_GPU", raising=False)
    monkeypatch.setattr(choose_cuda, "CudaGraphSampler", Graph)
    monkeypatch.setattr(persistent, "CudaGraphSampler", Graph)
    monkeypatch.setattr(choose_cuda, "why_no_machine", lambda device: None)
    monkeypatch.setattr(choose_cuda, "CudaMachine", lambda device: machine())

    def choose(precision="fp32", **changes):
        model = tiny_model(**changes)
        return choose_cuda.cuda_sampler(tiny_sampler(model), None, precision, None)

    return choose


def test_the_kernel_where_it_fits(choose, monkeypatch):
    assert isinstance(choose(), PersistentSampler)
    cases = [
        ({"precision": "bf16"}, "precision=bf16"),
        ({"n_cond_layers": 1}, "attend to each other"),
        ({"cond_dim": 0, "time_as_cond": False}, "encoder-only"),
        ({"horizon": 20}, "20 tokens"),
    ]
    for changes, reason in cases:
        assert reason in choose(**changes).how
    monkeypatch.setattr(choose_cuda, "why_no_machine", lambda device: "a GPU of compute capability 7.5")
    assert "7.5" in choose().how


def test_the_choice_can_be_forced(choose, monkeypatch):
    monkeypatch.setenv("BAC_GPU", "graph")
    assert "BAC_GPU=graph" in choose().how
    monkeypatch.setenv("BAC_GPU", "persistent")
    assert isinstance(choose(), PersistentSampler)
    with pytest.raises(Unavailable, match="20 tokens"):
        choose(horizon=20)
    monkeypatch.setenv("BAC_GPU", "fast")
    with pytest.raises(Unavailable, match="persistent, fused or graph"):
        choose()


def test_a_kernel_that_cannot_be_had_is_an_error(choose, monkeypatch):
    """Never a graph without a word."""

    class Broken(HostMachine):
        def prepare(self, shape, launch):
            raise NativeError("the compiler failed: set BAC_GPU=graph")

    monkeypatch.setattr(choose_cuda, "CudaMachine", lambda device: Broken())
    with pytest.raises(NativeError, match="BAC_GPU=graph"):
        choose()


def test_other_batches_go_through_a_graph(choose):
    sampler = choose()
    model = sampler.base.model
    many = SamplerInputs(torch.zeros(3, 6, 2), observation=torch.randn(3, 2, 3))
    expected = ReferenceSampler(sampler.base, None)(many, seeded(0)[0])
    assert error(sampler(many, seeded(0)[0]), expected) < TOLERANCE
    sampler(case(model), seeded(0)[0])
    assert (sampler.chunks, sampler.launches) == (2, 1) and "1 of 2 chunks by CUDA graph" in sampler.how


def test_the_first_chunk_is_compared_with_the_eager_loop(machine):
    class Wrong(HostMachine):
        def prepare(self, shape, launch):
            kernel = super().prepare(shape, launch)

            def start(params, blocks):
                params.eps = 1.0
                kernel(params, blocks)

            return start

    model = tiny_model()
    right, wrong = machine(), Wrong(3, folder=machine().folder)
    sampler = PersistentSampler(tiny_sampler(model), None, None, right)
    sampler(case(model), seeded(0)[0])
    assert sampler.difference < TOLERANCE
    with pytest.raises(NativeError, match="gives other actions"):
        PersistentSampler(tiny_sampler(model), None, None, wrong)(case(model), seeded(0)[0])


def test_the_report_says_which_one_ran(choose, monkeypatch):
    monkeypatch.setattr(
        "bac.acceleration.make_sampler",
        lambda base, schedule, *rest: choose_cuda.cuda_sampler(base, schedule, "fp32", None),
    )
    policy = tiny_policy()
    plain = policy.predict_action(observation(), seeded(0))["action"]
    with accelerate(policy, runtime="compiled") as fast:
        assert error(fast.predict_action(observation(), seeded(0))["action"], plain) < TOLERANCE
    assert "one persistent kernel on the CPU, 3 thread blocks" in str(fast.report())
    policy.load_state_dict(tiny_policy(seed=1).state_dict())
    with pytest.raises(RuntimeError, match="weights changed"):
        fast.sampler(policy.sampler_inputs(observation()))


def test_a_schedule_of_cross_attentions_alone(machine):
    """They exchange nothing when they compute, and yet their outputs are shared by all thread blocks when reused."""
    model = tiny_model()
    names = ReferenceSampler(tiny_sampler(model), None).schedule.blocks
    steps = {name: [0, 1, 2, 4] if name.endswith(".ca") else [0] for name in names}
    schedule = Schedule.from_steps(steps, 10)
    base = tiny_sampler(model)
    expected = ReferenceSampler(base, schedule)(case(model), seeded(0)[0])
    got = PersistentSampler(base, schedule, None, machine(threads=True))(case(model), seeded(0)[0])
    assert error(got, expected) < TOLERANCE
