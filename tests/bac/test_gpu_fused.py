"""The loop with fused kernels, in its CPU form: the actions of `reference`, in half of the eager loop's launches."""

import contextlib
import copy
import ctypes
import dataclasses
import types
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from bac import Schedule, accelerate
from bac.errors import Unavailable
from bac.native.errors import NativeError
from bac.native.gpu import compilers, cubins, cuda
from bac.native.gpu.host import HostMachine
from bac.native.gpu.structs import KERNELS, Fused
from bac.runtime import choose_cuda
from bac.runtime.choose import make_sampler
from bac.runtime.eager import EagerLoop
from bac.runtime.fused import FusedSampler, why_not_fused
from bac.runtime.fused_loop import FusedLoop
from bac.runtime.hoisted import Hoisted
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.solver import COLUMNS, solver_of
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.test_gpu_build import ELF, nvcc
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

FORMS = {"decoder": {}, "condition encoder": {"n_cond_layers": 1}, "time only": {"cond_dim": 0}}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """CPU forms; libraries are compiled once."""
    folder = tmp_path_factory.mktemp("fused")
    return lambda cls=HostMachine, **changes: cls(folder=folder, **changes)


def case(model, batch=2, seed=0, given=False, device="cpu"):
    """Inputs of some samples."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, model.horizon, model.input_dim)
    seen = torch.randn(batch, model.n_obs_steps, model.cond_dim, generator=generator) if model.obs_as_cond else None
    known = torch.rand(shape, generator=generator) * 2 - 1
    mask = (torch.rand(shape, generator=generator) < 0.3).to(device) if given else None
    return SamplerInputs(known.to(device), mask, None if seen is None else seen.to(device))


@torch.no_grad()
def fused(machine, base, schedule, inputs, generator, precision="fp32", tokens=None):
    """A chunk of the loop with fused kernels, without a graph."""
    hoisted = Hoisted(base, schedule, "compiled", tokens)
    loop = FusedLoop(hoisted, precision, machine.fused(base.model.n_emb, base.model.n_head))
    initial, noise = hoisted.draw(inputs.known, generator)
    return loop.run(initial, noise, inputs.head(tokens), hoisted.memory(inputs))


# ---- the actions are those of the reference --------------------------------------------------------------------------


@needs_compiler
@settings(max_examples=25)
@given(st.data())
def test_equal_to_reference(machine, data):
    """Over models, forms, samplers, schedules, batches, inpainting and numbers of tokens."""
    numbers = data.draw(st.integers(1, 5))
    model = tiny_model(
        seed=data.draw(st.integers(0, 10**6)),
        horizon=data.draw(st.integers(4, 20)),
        n_obs_steps=data.draw(st.integers(1, 3)),
        input_dim=numbers,
        output_dim=numbers,
        cond_dim=data.draw(st.sampled_from([0, 1, 4])),
        n_layer=data.draw(st.integers(1, 3)),
        n_head=data.draw(st.sampled_from([1, 2, 4])),
        n_emb=data.draw(st.sampled_from([16, 32, 72])),
        n_cond_layers=data.draw(st.sampled_from([0, 0, 1])),
        causal_attn=data.draw(st.booleans()),
    )
    steps = data.draw(st.integers(1, 8))
    base = tiny_sampler(model, data.draw(st.sampled_from(sorted(SAMPLERS))), steps)
    density = data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    schedule = random_schedule(model, steps, density, data.draw(st.integers(0, 99)))
    if solver_of(base).deterministic and data.draw(st.booleans()):
        schedule = dataclasses.replace(schedule, reuse="extrapolate")
    batch, given_ = data.draw(st.integers(1, 4)), data.draw(st.booleans())
    inputs = case(model, batch, data.draw(st.integers(0, 10**6)), given_)
    tokens = data.draw(st.sampled_from([None, 3])) if model.mask is not None else None
    expected = ReferenceSampler(base, schedule, tokens=tokens)(inputs, seeded(1)[0])
    m_gain, to_x0 = (solver_of(base).table[:, COLUMNS.index(name)] for name in ("m_gain", "to_x0"))
    allowed = max(TOLERANCE, 1e-6 * abs(m_gain * to_x0).max())  # rounding, divided by a small alpha
    assert error(fused(machine(), base, schedule, inputs, seeded(1)[0], tokens=tokens), expected) < allowed


@needs_compiler
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(machine, name):
    model = tiny_model()
    base, schedule = tiny_sampler(model, name), random_schedule(model, 10, 0.5, 3)
    expected = ReferenceSampler(base, schedule)(case(model), seeded(0)[0])
    assert error(fused(machine(), base, schedule, case(model), seeded(0)[0]), expected) < TOLERANCE


@needs_compiler
@every_form
@pytest.mark.parametrize("exact", [False, True])
def test_reused_and_extrapolated_outputs(machine, form, exact):
    """Steps without updates, and of cross-attentions alone; also with sizes that are constants, as for a GPU."""
    model = tiny_model(**FORMS[form])
    base, names = tiny_sampler(model, "ddim"), PlannedSampler(tiny_sampler(model)).schedule.blocks
    schedules = [
        random_schedule(model, 10, 0.3, 0),
        Schedule.from_steps({name: [0, 1, 5] for name in names}, 10),
        Schedule.from_steps({name: [0, 1, 2, 4] if name.endswith(".ca") else [0] for name in names}, 10),
    ]
    for schedule in schedules:
        for reuse in ("hold", "extrapolate"):
            schedule = dataclasses.replace(schedule, reuse=reuse)
            expected = PlannedSampler(base, schedule, tokens=4)(case(model), seeded(0)[0])
            got = fused(machine(exact=exact), base, schedule, case(model), seeded(0)[0], tokens=4)
            assert error(got, expected) < TOLERANCE


@needs_compiler
@pytest.mark.parametrize("exact", [False, True])
def test_bundled_policy(machine, exact):
    policy = load_policy("checkpoint/pusht_lowdim/ddpm100").policy
    base = DiffusionSampler(policy.model, scheduler_of("ddim")[0], 5)
    inputs = policy.sampler_inputs(policy.random_observation(2))
    for schedule in (None, random_schedule(policy.model, 5, 0.4, 0)):
        expected = ReferenceSampler(base, schedule)(inputs, seeded(0)[0])
        assert error(fused(machine(exact=exact), base, schedule, inputs, seeded(0)[0]), expected) < TOLERANCE


@needs_compiler
@every_form
def test_nothing_is_read_before_it_is_written(machine, form):
    """PyTorch fills what it allocates with NaN."""
    model = tiny_model(**FORMS[form])
    base = tiny_sampler(model, "ddim")
    torch.use_deterministic_algorithms(True)
    try:
        for schedule in (None, random_schedule(model, 10, 0.3, 0)):
            expected = PlannedSampler(base, schedule)(case(model), seeded(0)[0])
            assert error(fused(machine(), base, schedule, case(model), seeded(0)[0]), expected) < TOLERANCE
    finally:
        torch.use_deterministic_algorithms(False)


@needs_compiler
@every_form
def test_bf16_is_as_close_as_the_eager_loop(machine, form):
    model = tiny_model(**FORMS[form])
    base = tiny_sampler(model)
    for density in (1.0, 0.3):
        schedule, errors = random_schedule(model, 10, density, 0), []
        for seed in range(4):
            inputs = case(model, 3, seed)
            expected = ReferenceSampler(base, schedule)(inputs, seeded(seed)[0])
            eager = PlannedSampler(base, schedule, "bf16")(inputs, seeded(seed)[0])
            own = fused(machine(), base, schedule, inputs, seeded(seed)[0], "bf16")
            errors.append((error(own, expected), error(eager, expected)))
        own, eager = (sum(column) for column in zip(*errors))
        assert 1e-4 < own < 2 * eager


# ---- how much is launched --------------------------------------------------------------------------------------------


class Launches(TorchDispatchMode):
    """Counts the operations that compute something: all but views and allocations.

    A GPU needs one kernel at least for each. The eager loop's products with a bias count as one, although a GPU may
    copy the bias first.
    """

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        name = function._overloadpacket.__name__
        storages = {a.untyped_storage().data_ptr() for a in arguments if isinstance(a, torch.Tensor)}
        parts = out if isinstance(out, (tuple, list)) else (out,)
        view = all(isinstance(part, torch.Tensor) and part.untyped_storage().data_ptr() in storages for part in parts)
        if not name.startswith(("empty", "new_empty")) and (function._schema.is_mutable or not view):
            self.counts[name] += 1
        return out


@torch.no_grad()
def launches(machine, model, steps, schedule=None):
    """Of a chunk: of the eager loop, and of the one with fused kernels those of PyTorch and those of ours."""
    hoisted, own, inputs = Hoisted(tiny_sampler(model, steps=steps), schedule, "compiled"), Counter(), case(model)
    start = machine.fused(model.n_emb, model.n_head)

    def kernels(name, arguments):
        own[name] += 1
        start(name, arguments)

    found = []
    for loop in (EagerLoop(hoisted), FusedLoop(hoisted, "fp32", kernels)):
        initial, noise = hoisted.draw(inputs.known, seeded(0)[0])
        memory = hoisted.memory(inputs)
        with Launches() as counted:
            loop.run(initial, noise, inputs, memory)
        found.append(counted.counts)
    return *found, own


@needs_compiler
@every_form
def test_a_step_launches_less_than_half(machine, form):
    """Eight layers, as Push-T's model has. Where condition tokens do not mix, a layer is 8 launches, and all are."""
    model = tiny_model(**FORMS[form], n_layer=8)
    eager, torch_part, own = (
        more - less for less, more in zip(launches(machine(), model, 5), launches(machine(), model, 6))
    )
    ours = torch_part.total() + own.total()
    assert own == {"attend": 8, "cross": 8, "gelu": 8, "add_norm": 7, "turn": 1}
    assert ours == 64 or (form == "condition encoder" and ours <= 76)
    assert eager.total() >= 130 and eager.total() >= 2 * ours


@needs_compiler
def test_a_schedule_launches_less_than_half(machine):
    """Outputs are stored where they are computed."""
    model = tiny_model(n_layer=8)
    eager, torch_part, own = launches(machine(), model, 20, random_schedule(model, 20, 0.1, 0))
    assert "copy_" not in torch_part
    assert eager.total() >= 2 * (torch_part.total() + own.total())


# ---- which one runs --------------------------------------------------------------------------------------------------


@needs_compiler
@every_form
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_in_a_graph(machine, graphs_on_cpu, form, precision):
    """Interleaved batch sizes; the first chunk of each graph is compared with the eager loop's."""
    model = tiny_model(**FORMS[form])
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.3, 0)
    sampler, plain = FusedSampler(base, schedule, precision, 4, machine()), PlannedSampler(base, schedule, tokens=4)
    assert sampler.how == "CUDA graph of fused kernels on the CPU"
    for batch, seed in [(2, 0), (3, 1), (2, 2)]:
        inputs = case(model, batch, seed, given=True)
        got = sampler(inputs, seeded(seed)[0])
        assert error(got, plain(inputs, seeded(seed)[0])) < (TOLERANCE if precision == "fp32" else 0.1)
    assert len(sampler.graphs) == 2 and sampler.chunks == 3
    assert "first chunk differed from the eager loop's" in sampler.how
    assert copy.deepcopy(sampler).chunks == 0


class Wrong(HostMachine):
    """Starts one kernel with a number that is off, or without one of its tensors."""

    broken = "attend"
    CHANGES = {
        "add_norm": {"eps": 1.0},
        "attend": {"scale": 0.0},
        "cross": {"next_gain": None},
        "gelu": {"items": 1},
        "turn": {"to_x": 0.5},
    }

    def fused(self, width, heads):
        start = super().fused(width, heads)

        def wrong(name, arguments):
            for field, value in self.CHANGES[name].items() if name == self.broken else ():
                setattr(arguments, field, value)
            start(name, arguments)

        return wrong


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_is_wrong_is_noticed(machine, graphs_on_cpu, name):
    stand_in = machine(Wrong)
    stand_in.broken = name
    model = tiny_model()
    sampler = FusedSampler(tiny_sampler(model), None, "fp32", None, stand_in)
    for _ in range(2):  # its graph is not used afterwards
        with pytest.raises(NativeError, match="(?s)other actions here than the eager loop.*BAC_GPU=graph"):
            sampler(case(model), seeded(0)[0])
    assert sampler.chunks == 0


@pytest.fixture
def choose(monkeypatch, machine, graphs_on_cpu):
    """cuda_sampler with BAC_GPU=fused on a machine without a GPU."""
    monkeypatch.setenv("BAC_GPU", "fused")
    monkeypatch.setattr(choose_cuda, "why_no_machine", lambda device: None)
    monkeypatch.setattr(choose_cuda, "CudaMachine", lambda device: machine())

    def choose(precision="fp32", **changes):
        return choose_cuda.cuda_sampler(tiny_sampler(tiny_model(**changes)), None, precision, None)

    return choose


@needs_compiler
def test_it_runs_where_it_is_asked_for(choose, monkeypatch):
    monkeypatch.setattr(
        "bac.acceleration.make_sampler",
        lambda base, schedule, *rest: choose_cuda.cuda_sampler(base, schedule, "fp32", None),
    )
    policy = tiny_policy()
    plain = policy.predict_action(observation(), seeded(0))["action"]
    with accelerate(policy, runtime="compiled") as fast:
        assert error(fast.predict_action(observation(), seeded(0))["action"], plain) < TOLERANCE
        assert "CUDA graph of fused kernels on the CPU" in str(fast.report())
    monkeypatch.setenv("BAC_GPU", "graph")
    assert not isinstance(choose(), FusedSampler)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "fp16"}, "precision=fp16"),
        ({"cond_dim": 0, "time_as_cond": False}, "encoder-only"),
        ({"n_emb": 1088}, "a width of 1088"),
        ({"n_emb": 320, "n_head": 1}, "heads of 320"),
    ],
)
def test_what_does_not_fit_is_refused(choose, changes, reason):
    with pytest.raises(Unavailable, match=f"BAC_GPU=fused cannot run.*{reason}.*unset it"):
        choose(**changes)


def test_a_gpu_without_the_kernels_is_refused(choose, monkeypatch):
    monkeypatch.setattr(choose_cuda, "why_no_machine", lambda device: "a GPU of compute capability 7.5")
    with pytest.raises(Unavailable, match="BAC_GPU=fused.*7.5"):
        choose()


def test_a_model_that_does_not_fit_is_refused_beside_the_choice(machine):
    model = tiny_model(cond_dim=0, time_as_cond=False)
    with pytest.raises(Unavailable, match="encoder-only.*BAC_GPU=graph"):
        FusedSampler(tiny_sampler(model), None, "fp32", None, machine())
    assert why_not_fused(tiny_model().double(), "fp32") == "weights in torch.float64"


# ---- for a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(nvcc() is None, reason="needs nvcc")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90"])
def test_nvcc_compiles_them(architecture):
    options = cubins.fused_options_of(256, 4)
    assert compilers.nvcc([nvcc()]).compile(architecture, options, compilers.FUSED).startswith(ELF)


def test_launches_go_to_the_current_stream(monkeypatch):
    """With a driver that only listens."""
    calls = []

    class Driver:
        def __getattr__(self, name):
            def call(*arguments):
                simple = [a.value if isinstance(a, ctypes._SimpleCData) else a for a in arguments]
                if name == "cuLaunchKernel":
                    simple[9] = Fused.from_buffer_copy(ctypes.cast(arguments[9][0], ctypes.POINTER(Fused)).contents)
                if name == "cuModuleGetFunction":
                    arguments[0]._obj.value = 70 + KERNELS.index(arguments[2].decode().removeprefix("bac_"))
                calls.append((name, simple))
                return 0

            return call

    monkeypatch.setattr(cuda, "fused_cubin", lambda *sizes: repr(sizes).encode())
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=1234))
    machine = object.__new__(cuda.CudaMachine)
    machine.device, machine.driver, machine.architecture = torch.device("cpu"), Driver(), "sm_90"
    launch = machine.fused(256, 4)
    assert calls[0][0] == "cuModuleLoadData" and calls[0][1][1] == b"('sm_90', 256, 4)"
    launch("cross", Fused(items=9, eps=0.5))
    name, given_ = calls[-1]
    assert name == "cuLaunchKernel" and given_[:9] == [72, 3, 1, 1, 128, 1, 1, 0, 1234]
    assert (given_[9].items, given_[9].eps, given_[10]) == (9, 0.5, None)


@pytest.mark.gpu
@every_form
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gpu_fused_kernels_equal_the_reference(monkeypatch, form, precision):
    monkeypatch.setenv("BAC_GPU", "fused")
    model = tiny_model(**FORMS[form]).cuda()
    for name, density in [("ddpm", 0.3), ("ddim", 0.3), ("ddim", 1.0)]:
        base, schedule = tiny_sampler(model, name), random_schedule(model, 10, density, 0)
        sampler, reference = make_sampler(base, schedule, "compiled", precision), ReferenceSampler(base, schedule)
        assert isinstance(sampler, FusedSampler)
        for batch, seed in [(1, 0), (3, 1), (1, 2), (65, 3)]:
            inputs = case(model, batch, seed, given=True, device="cuda")
            got, expected = sampler(inputs, seeded(seed)[0]), reference(inputs, seeded(seed)[0])
            assert error(got, expected) < (2e-5 if precision == "fp32" else 0.2)


@pytest.mark.gpu
def test_gpu_bundled_policy_in_fused_kernels(monkeypatch):
    monkeypatch.setenv("BAC_GPU", "fused")
    policy = load_policy("checkpoint/pusht_lowdim/ddpm100").policy.cuda()
    inputs = policy.sampler_inputs({key: value.cuda() for key, value in policy.random_observation(64).items()})
    sampler = make_sampler(policy.sampler, None, "compiled", tokens=9)
    expected = policy.sampler(inputs, seeded(0)[0])[:, :9].contiguous()
    for _ in range(3):
        assert error(sampler(inputs, seeded(0)[0]), expected) < 1e-4
