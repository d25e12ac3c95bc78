"""A cache of native libraries for tests, compilers that take no time, and CUDA graphs on the CPU."""

import contextlib
from pathlib import Path

import pytest
import torch

from bac.native import build, compiler
from bac.runtime import cuda_graph
from bac.runtime.cuda_graph import CudaGraphSampler


@pytest.fixture
def library_cache(tmp_path, monkeypatch):
    """A cache folder that does not exist yet, in a process that has loaded nothing."""
    for name in ("BAC_PREBUILT", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_loaded", {})
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def library_bytes():
    """A library that was compiled once."""
    return Path(build.library_info().path).read_bytes()


@pytest.fixture
def compiler_commands(library_bytes, monkeypatch):
    """The commands of the compilers, which take no time."""
    commands = []

    def fake(command, sources, folder, advice):
        commands.append(command)
        return library_bytes

    monkeypatch.setattr(compiler, "compile_library", fake)
    return commands


class RepeatingGraph:
    """Stands for torch.cuda.CUDAGraph: a replay computes the captured function again, into the same output."""

    def replay(self):
        self.captured.out.copy_(self.body(self.captured, self.loop))


@pytest.fixture
def graphs_on_cpu(monkeypatch):
    """CudaGraphSampler with the stand-in graph."""
    original = cuda_graph._Captured._body

    def body(captured, loop):
        captured.graph.captured, captured.graph.loop, captured.graph.body = captured, loop, original
        return original(captured, loop)

    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr(cuda_graph._Captured, "_body", body)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RepeatingGraph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)

    monkeypatch.setattr(CudaGraphSampler, "_check_device", lambda self, device: None)
