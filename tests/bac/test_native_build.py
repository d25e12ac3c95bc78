"""The native library: built once, found again, and a clear error where it cannot be built."""
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_policies import needs_compiler, tiny_policy

from bac import accelerate
from bac.native import build


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BAC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_no_compiler(empty_cache, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    policy = tiny_policy()
    own = policy.sampler
    with pytest.raises(build.CompilerMissing, match=r"found no compiler: install g\+\+ or clang\+\+ .*or use runtime=planned"):
        accelerate(policy, runtime="compiled")
    assert policy.sampler is own and not empty_cache.exists()


def test_chosen_compiler_is_not_replaced_by_another(empty_cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(build.CompilerMissing, match="CXX=no-such-compiler is not a program here"):
        build.library()


def test_failing_compiler(empty_cache, tmp_path, monkeypatch):
    compiler = tmp_path / "broken++"
    compiler.write_text("#!/bin/sh\necho 'internal error 42' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", f"{compiler} --option")
    with pytest.raises(build.CompilerMissing, match=r"(?s)broken\+\+ could not compile.*runtime=planned.*--option.*internal error 42"):
        build.library()
    assert list(empty_cache.iterdir()) == []


@needs_compiler
def test_compiled_once_also_by_several_threads(tmp_path, monkeypatch):
    real = Path(build.library()._name)
    compiled = []

    def fake(compiler, source, path):
        compiled.append(path)
        path.parent.mkdir()
        shutil.copy(real, path)

    monkeypatch.setattr(build, "_compile", fake)
    monkeypatch.setenv("BAC_CACHE", str(tmp_path / "cache"))
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: build.library(), range(8)))
    assert len(compiled) == 1 and len({id(library) for library in libraries}) == 1
    assert compiled[0].parent == tmp_path / "cache" and compiled[0].name == real.name


@needs_compiler
@pytest.mark.parametrize("change", ["FLAGS", "processor"])
def test_other_flags_or_processors_get_their_own_library(tmp_path, monkeypatch, change):
    """A cache folder may be shared by machines; -march=native code of another one would crash."""
    real = Path(build.library()._name)
    if change == "FLAGS":
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DNEW"))
    else:
        monkeypatch.setattr(build, "_processor", lambda: "another")
    monkeypatch.setattr(build, "_compile", lambda compiler, source, path: shutil.copy(real, tmp_path / path.name))
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    assert Path(build.library()._name).name != real.name
