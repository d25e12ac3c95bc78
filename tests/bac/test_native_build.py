"""The native library: built once, found again, and a clear error where there is none."""

import os
import platform
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bac import accelerate
from bac.native import build, compiler, processor
from tests.bac.native_library import again, without_compilers
from tests.bac.tiny_policies import needs_compiler, tiny_policy
from tests.conftest import ROOT

# ---- no compiler, broken compilers -----------------------------------------------------------------------------------


def test_no_compiler(library_cache, monkeypatch):
    without_compilers(monkeypatch)
    policy = tiny_policy()
    own = policy.sampler
    with pytest.raises(
        build.CompilerMissing, match=r"found no compiler: install g\+\+ or clang\+\+ .*or use runtime=planned"
    ):
        accelerate(policy, runtime="compiled")
    assert policy.sampler is own and not library_cache.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no-such-compiler -m64", "CXX=no-such-compiler is not a program here"),
        ("'g++", "is not a command .*correct or unset CXX"),
        ("/dev/null", "CXX=/dev/null is not a program here"),
    ],
)
def test_chosen_compiler_is_not_replaced_by_another(library_cache, monkeypatch, value, message):
    monkeypatch.setenv("CXX", value)
    with pytest.raises(build.CompilerMissing, match=message):
        build.library()


def fake_compiler(folder, script):
    path = folder / "broken++"
    path.write_text(f"#!/bin/sh\ncase $* in *-dM*|*--version*) exit 0;; esac\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (
            "echo 'internal error 42' >&2; exit 1",
            build.CompilerMissing,
            r"(?s)broken\+\+ could not compile.*=planned.*--option.*error 42",
        ),
        ("printf '\\377\\376' >&2; exit 3", build.CompilerMissing, "could not compile"),
        ("exit 0", build.CompilerMissing, "no library"),
        ("echo 'as: No space left on device' >&2; exit 1", build.CacheError, "no space left .*set BAC_CACHE"),
        (
            'while [ "$1" != -o ]; do shift; done; echo text > "$2"',
            build.NativeError,
            "cannot be used: .*another compiler through CXX",
        ),
    ],
)
def test_failing_compiler(library_cache, tmp_path, monkeypatch, script, error, message):
    monkeypatch.setenv("CXX", f"{fake_compiler(tmp_path, script)} --option")
    with pytest.raises(error, match=message):
        build.library()
    assert not [path for path in library_cache.iterdir() if path.name.startswith(".")]  # nothing half-made is left


# ---- found again -----------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(len(compiler.levels()) == 1, reason="this machine has one level")
def test_a_level_that_the_compiler_does_not_know_is_left_out(tmp_path, monkeypatch):
    last = list(compiler.levels())[-1]
    option = compiler.levels()[last][-1]
    script = f'case " $* " in *" {option} "*) exit 1;; esac; exec g++ "$@"'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, script)))
    assert list(compiler.known_levels(compiler.find_compiler())) == list(compiler.levels())[:-1]


def test_compiled_once_also_by_several_threads(library_cache, compiler_commands):
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: build.library(), range(8)))
    assert len(compiler_commands) == 1 and len({id(library) for library in libraries}) == 1
    assert sorted(path.suffix for path in library_cache.iterdir()) == [".json", ".so"]
    assert stat.S_IMODE(library_cache.stat().st_mode) == 0o700
    info = build.library_info()
    assert info.origin == "built" and Path(info.path).parent == library_cache
    assert info.compiler and not any(flag.startswith("-march") for flag in info.flags)


@needs_compiler
def test_a_cached_library_needs_no_compiler(library_cache, compiler_commands, monkeypatch):
    first = build.library_info()
    without_compilers(monkeypatch)
    second = again(monkeypatch)
    assert (second.origin, second.path, second.compiler) == ("cached", first.path, first.compiler)
    assert len(compiler_commands) == 1


@needs_compiler
def test_a_cached_library_can_be_read_where_nothing_can_be_written(library_cache, compiler_commands, monkeypatch):
    build.library()
    library_cache.chmod(0o500)
    assert again(monkeypatch).origin == "cached"


@needs_compiler
@pytest.mark.parametrize("change", ["flags", "levels", "machine", "sources", "options in CXX"])
def test_what_a_library_depends_on_gets_its_own(library_cache, compiler_commands, monkeypatch, change):
    first = build.library_info()
    if change == "flags":
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DNEW"))
    elif change == "levels":
        monkeypatch.setattr(compiler, "levels", lambda: {"baseline": ("-O1",)})
    elif change == "machine":
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    elif change == "sources":
        monkeypatch.setattr(build, "sources_digest", lambda: "0" * 64)
    else:
        monkeypatch.setenv("CXX", f"{compiler.find_compiler()[0]} -ffast-math")
    second = again(monkeypatch)
    assert second.origin == "built" and second.path != first.path and len(compiler_commands) == 2
    assert Path(first.path).exists()


@needs_compiler
@pytest.mark.parametrize("options", ["", " -march=native"], ids=["plain", "with options"])
def test_another_processor_takes_the_same_library_unless_options_bind_it(
    library_cache, compiler_commands, monkeypatch, options
):
    """A cache folder may be shared by machines; code that options made for one processor would crash on another."""
    monkeypatch.setenv("CXX", compiler.find_compiler()[0] + options)
    first = build.library_info()
    monkeypatch.setattr(processor, "identity", lambda: "another")
    assert (again(monkeypatch).path == first.path) == (not options)
    assert len(compiler_commands) == (2 if options else 1)


@needs_compiler
def test_another_compiler_makes_a_new_library_only_when_asked(library_cache, compiler_commands, monkeypatch):
    build.library()
    monkeypatch.setattr(compiler, "version", lambda command: "another compiler 2.0")
    assert again(monkeypatch).origin == "cached" and len(compiler_commands) == 1
    record = build.build()
    assert len(compiler_commands) == 2 and again(monkeypatch).compiler == record["compiler"] == "another compiler 2.0"


@pytest.mark.parametrize("name", ["BAC_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_empty_variables_count_as_unset(library_cache, tmp_path, monkeypatch, name):
    monkeypatch.delenv("BAC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if name == "HOME":
        monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv(name, raising=False)
    unset = build.cache_folder()
    monkeypatch.setenv(name, "")
    assert build.cache_folder() == unset and unset.is_absolute() and unset != ROOT


def test_without_home_and_variables_the_cache_has_to_be_named(library_cache, monkeypatch):
    for name in ("BAC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    with pytest.raises(build.CacheError, match="no home folder .*set BAC_CACHE"):
        build.cache_folder()


@needs_compiler
def test_several_that_build_different_libraries_at_once_stay_right(library_cache, library_bytes, monkeypatch, caplog):
    # bytes after a library's end mean nothing
    monkeypatch.setattr(compiler, "compile_library", lambda *_: library_bytes + os.urandom(8))
    with ThreadPoolExecutor(6) as pool:
        records = list(pool.map(lambda _: build.build(), range(12)))
    assert again(monkeypatch).origin == "cached" and not caplog.messages
    assert all((library_cache / record["library"]).exists() for record in records)
