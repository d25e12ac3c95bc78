"""A cache of native libraries for tests, and compilers that take no time."""

from pathlib import Path

import pytest

from bac.native import build, compiler


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
