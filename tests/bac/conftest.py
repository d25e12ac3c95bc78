"""A cache of native libraries for tests, compilers that take no time, and CUDA graphs on the CPU."""

from pathlib import Path

import pytest
import torch

from bac.native import build, compiler
from bac.runtime import cuda_graph, vision_graph
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


class RepeatingWork:
    """Stands for CapturedWork: a replay computes the captured function again, into the same output."""

    def __init__(self, body, device):
        self.body, self.out = body, body()

    @torch.no_grad()
    def replay(self):
        self.out.copy_(self.body())


@pytest.fixture
def graphs_on_cpu(monkeypatch):
    """CudaGraphSampler and EncoderGraph with the stand-in."""
    for module in (cuda_graph, vision_graph):
        monkeypatch.setattr(module, "CapturedWork", RepeatingWork)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(CudaGraphSampler, "_check_device", lambda self, device: None)
