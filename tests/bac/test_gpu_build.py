"""How the persistent kernel is compiled, kept and launched; on a GPU, what it computes."""

import contextlib
import ctypes
import os
import types

import pytest
import torch

from bac import accelerate
from bac.native.errors import CacheError, CompilerMissing, NativeError
from bac.native.gpu import compilers, cubins, cuda
from bac.native.gpu.compilers import Compiler
from bac.native.gpu.shares import THREADS, Device, Launch, Shape, launch_of
from bac.native.gpu.structs import Params
from bac.runtime.choose import make_sampler
from bac.runtime.persistent import PersistentSampler
from bac.runtime.reference import ReferenceSampler
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import error, observation, random_schedule, seeded, tiny_model, tiny_policy, tiny_sampler

ELF = b"\x7fELF"


def of_size(**changes) -> tuple[Shape, Launch]:
    """The bundled size on an H100, with other values of some fields."""
    sizes = {"layers": 8, "width": 256, "heads": 4, "numbers": 2, "tokens": 9, "observed": 2, "half": True}
    shape = Shape(**sizes | changes)
    return shape, launch_of(shape, Device(132, 227 * 1024, 50 * 2**20))


def nvcc():
    """nvcc of this machine, or None."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", "/usr/local/cuda-13.0"]
    return next((home + "/bin/nvcc" for home in homes if os.path.isfile(home + "/bin/nvcc")), None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a compiler that counts what it is asked for."""
    monkeypatch.setenv("BAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NVCC", raising=False)
    asked = []

    def compile_(architecture, options, source):
        asked.append((architecture, options))
        return ELF + repr(asked[-1]).encode()

    monkeypatch.setattr(cubins, "find_compiler", lambda: Compiler("counting", compile_))
    return types.SimpleNamespace(folder=tmp_path / "cache", asked=asked)


def test_a_kernel_is_compiled_once(cache):
    cases = [
        (name, of_size(**changes)) for name in ("sm_80", "sm_90") for changes in ({}, {"half": False}, {"tokens": 8})
    ]
    kernels = {cubins.cubin(name, *sizes) for name, sizes in cases}
    assert len(kernels) == len(cache.asked) == len(cases)
    assert cubins.cubin("sm_90", *of_size()) in kernels and len(cache.asked) == len(cases)
    assert all(oct(path.stat().st_mode)[-3:] == "600" for path in cache.folder.iterdir())


def test_fused_kernels_are_compiled_once(cache, caplog):
    kernels = [cubins.fused_cubin("sm_90", width, 4) for width in (256, 64, 256)]
    assert kernels[0] == kernels[2] and len(cache.asked) == 2 and not caplog.text


def test_a_damaged_kernel_is_compiled_anew_and_that_is_said(cache, caplog):
    content = cubins.cubin("sm_90", *of_size())
    stored = next(cache.folder.glob("kernel-*.cubin"))
    stored.write_bytes(content[:-1])
    assert cubins.cubin("sm_90", *of_size()) == content and len(cache.asked) == 2
    assert "not the file that was stored" in caplog.text


def test_a_cache_that_others_can_write_to_is_refused(cache):
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    with pytest.raises(CacheError, match="others could put code there"):
        cubins.cubin("sm_90", *of_size())


def test_no_compiler_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(cubins, "find_compiler", lambda: None)
    with pytest.raises(CompilerMissing, match="BAC_GPU=graph"):
        cubins.cubin("sm_90", *of_size())


def test_a_named_compiler_must_be_there(monkeypatch):
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    with pytest.raises(CompilerMissing, match="NVCC=/nowhere/nvcc is not a program"):
        compilers.find_compiler()


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    program = tmp_path / "nvcc"
    program.write_text("#!/bin/sh\necho 'error: no such architecture' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("NVCC", f"{program} -lineinfo")
    with pytest.raises(CompilerMissing, match="(?s)BAC_GPU=graph.*-lineinfo.*no such architecture"):
        compilers.find_compiler().compile("sm_90", (), compilers.SOURCE)


@pytest.mark.slow
@pytest.mark.skipif(nvcc() is None, reason="needs nvcc")
def test_nvcc_compiles_it():
    """For Hopper; `python -m stress.gpu` compiles every architecture."""
    assert compilers.nvcc([nvcc()]).compile("sm_90", cubins.options_of(*of_size()), compilers.SOURCE).startswith(ELF)


# ---- launching, with a driver that only listens ----------------------------------------------------------------------


class Driver:
    """Stands for the CUDA driver; notes what it is called with."""

    def __init__(self, status=0):
        self.status, self.calls = status, []

    def __getattr__(self, name):
        def call(*arguments):
            if name == "cuLaunchCooperativeKernel":  # a driver copies the parameters before it returns
                params = ctypes.cast(arguments[9][0], ctypes.POINTER(Params)).contents
                arguments = (*arguments[:9], Params.from_buffer_copy(params))
            simple = [a.value if isinstance(a, ctypes._SimpleCData) else a for a in arguments]
            self.calls.append((name, simple))
            return self.status if name.startswith("cuLaunch") else 0

        return call


@pytest.fixture
def listening(monkeypatch):
    """A kernel on that driver, and the events of its stream."""
    events = []

    class Stream:
        cuda_stream = 1234

        def wait_event(self, event):
            events.append("wait")

    class Event:
        def record(self, stream):
            events.append("record")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())

    def kernel(driver):
        return cuda._Kernel(types.SimpleNamespace(driver=driver, device=torch.device("cpu")), ctypes.c_void_p(77))

    return kernel, events


def test_a_launch_gives_the_driver_what_it_needs(listening):
    """Launches on other streams wait: they share buffers."""
    kernel, events = listening
    driver = Driver()
    kernel(driver)(Params(tokens=9, resident=98304, scratch=50000, eps=0.5), 128)
    ((launch, given),) = driver.calls
    assert launch == "cuLaunchCooperativeKernel"
    assert given[:9] == [77, 128, 1, 1, THREADS, 1, 1, 148304, 1234]
    assert (given[9].tokens, given[9].eps) == (9, 0.5)
    assert events == ["wait", "record"]


def test_a_launch_that_fails_says_what_to_do(listening):
    kernel, _ = listening
    with pytest.raises(NativeError, match="cuLaunchCooperativeKernel of the GPU kernel failed.*BAC_GPU=graph"):
        kernel(Driver(status=720))(Params(barrier=4096), 128)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def inputs_of(model, seed):
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(1, model.n_obs_steps, model.cond_dim, generator=generator).cuda() if model.obs_as_cond else None
    return SamplerInputs(torch.zeros(1, model.horizon, model.input_dim).cuda(), observation=seen)


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("changes", [{}, {"cond_dim": 0}, {"horizon": 9, "n_layer": 3}, {"horizon": 16, "n_emb": 128}])
def test_gpu_kernel_equals_the_reference(changes, half):
    model = tiny_model(half=half, **changes).cuda()
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.3, 0)
    sampler = make_sampler(base, schedule, "compiled")
    assert isinstance(sampler, PersistentSampler)
    for seed in range(5):
        expected = ReferenceSampler(base, schedule)(inputs_of(model, seed), seeded(seed)[0])
        assert error(sampler(inputs_of(model, seed), seeded(seed)[0]), expected) < 2e-5


@pytest.mark.gpu
def test_gpu_chunks_are_the_same_every_time():
    """A barrier that lets a thread block through too early would show now and then."""
    policy = load_policy("checkpoint/pusht_lowdim/ddpm100").policy.cuda()
    inputs = policy.sampler_inputs({"obs": torch.rand(1, 2, 20).cuda() * 512})
    sampler = make_sampler(policy.sampler, random_schedule(policy.model, 100, 0.1, 0), "compiled", tokens=9)
    first = sampler(inputs, seeded(0)[0])
    assert all(torch.equal(sampler(inputs, seeded(0)[0]), first) for _ in range(200))
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(sampler(inputs, seeded(0)[0]))
    torch.cuda.synchronize()
    assert all(torch.equal(result, first) for result in results)


@pytest.mark.gpu
def test_gpu_report_and_forced_graph(monkeypatch):
    policy = tiny_policy().cuda()
    plain = policy.predict_action(observation(), seeded(0))["action"]
    for choice, words in (("persistent", "one persistent kernel"), ("graph", "BAC_GPU=graph")):
        monkeypatch.setenv("BAC_GPU", choice)
        with accelerate(policy, runtime="compiled") as fast:
            assert error(fast.predict_action(observation(), seeded(0))["action"], plain) < 2e-5
        assert words in str(fast.report())
