"""The native library: built once, found again, never loaded unless it is what was stored, and a clear error where there is none."""

import json
import logging
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_policies import needs_compiler, tiny_policy

from bac import accelerate, command
from bac.native import build, compiler, processor, structs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder that does not exist yet, in a process that has loaded nothing."""
    for name in ("BAC_PREBUILT", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_loaded", {})
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def content():
    """A library that was compiled once."""
    return Path(build.library_info().path).read_bytes()


@pytest.fixture
def compiled(content, monkeypatch):
    """Compiles in no time; lists the compilers' commands."""
    commands = []

    def fake(command, source, folder, march, advice):
        commands.append([*command, f"-march={march}"])
        return content

    monkeypatch.setattr(compiler, "compile_library", fake)
    return commands


def again(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(build, "_loaded", {})
    return build.library_info()


def without_compilers(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


# ---- no compiler, broken compilers -------------------------------------------------------------------------------------


def test_no_compiler(cache, monkeypatch):
    without_compilers(monkeypatch)
    policy = tiny_policy()
    own = policy.sampler
    with pytest.raises(
        build.CompilerMissing, match=r"found no compiler: install g\+\+ or clang\+\+ .*or use runtime=planned"
    ):
        accelerate(policy, runtime="compiled")
    assert policy.sampler is own and not cache.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [("no-such-compiler -m64", "CXX=no-such-compiler is not a program here"), ("'g++", "is not a command .*correct or unset CXX"),
     ("/dev/null", "CXX=/dev/null is not a program here")],
)  # fmt: skip
def test_chosen_compiler_is_not_replaced_by_another(cache, monkeypatch, value, message):
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
def test_failing_compiler(cache, tmp_path, monkeypatch, script, error, message):
    monkeypatch.setenv("CXX", f"{fake_compiler(tmp_path, script)} --option")
    with pytest.raises(error, match=message):
        build.library()
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]  # nothing half-made is left


# ---- found again -------------------------------------------------------------------------------------------------------


@needs_compiler
def test_compiled_once_also_by_several_threads(cache, compiled):
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: build.library(), range(8)))
    assert len(compiled) == 1 and len({id(library) for library in libraries}) == 1
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".so"]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    info = build.library_info()
    assert (
        info.origin == "built" and Path(info.path).parent == cache and info.compiler and "-march=native" in info.flags
    )


@needs_compiler
def test_a_cached_library_needs_no_compiler(cache, compiled, monkeypatch):
    first = build.library_info()
    without_compilers(monkeypatch)
    second = again(monkeypatch)
    assert (second.origin, second.path, second.compiler) == ("cached", first.path, first.compiler) and len(
        compiled
    ) == 1


@needs_compiler
def test_a_cached_library_can_be_read_where_nothing_can_be_written(cache, compiled, monkeypatch):
    build.library()
    cache.chmod(0o500)
    assert again(monkeypatch).origin == "cached"


@needs_compiler
@pytest.mark.parametrize("change", ["flags", "processor", "sources", "options in CXX"])
def test_what_a_library_depends_on_gets_its_own(cache, compiled, monkeypatch, change):
    """A cache folder may be shared by machines; -march=native code of another one would crash."""
    first = build.library_info()
    if change == "flags":
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-DNEW"))
    elif change == "processor":
        monkeypatch.setattr(processor, "identity", lambda: "another")
    elif change == "sources":
        monkeypatch.setattr(build, "sources_digest", lambda: "0" * 64)
    else:
        monkeypatch.setenv("CXX", f"{compiler.find_compiler()[0]} -ffast-math")
    second = again(monkeypatch)
    assert second.origin == "built" and second.path != first.path and len(compiled) == 2
    assert Path(first.path).exists()


@needs_compiler
def test_another_compiler_makes_a_new_library_only_when_asked(cache, compiled, monkeypatch):
    build.library()
    monkeypatch.setattr(compiler, "version", lambda command: "another compiler 2.0")
    assert again(monkeypatch).origin == "cached" and len(compiled) == 1
    record = build.build()
    assert len(compiled) == 2 and again(monkeypatch).compiler == record["compiler"] == "another compiler 2.0"


@pytest.mark.parametrize("name", ["BAC_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_empty_variables_count_as_unset(cache, tmp_path, monkeypatch, name):
    monkeypatch.delenv("BAC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if name == "HOME":
        monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv(name, raising=False)
    unset = build.cache_folder()
    monkeypatch.setenv(name, "")
    assert build.cache_folder() == unset and unset.is_absolute() and unset != ROOT


def test_without_home_and_variables_the_cache_has_to_be_named(cache, monkeypatch):
    for name in ("BAC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    with pytest.raises(build.CacheError, match="no home folder .*set BAC_CACHE"):
        build.cache_folder()


@needs_compiler
def test_several_that_build_different_libraries_at_once_stay_right(cache, content, monkeypatch, caplog):
    monkeypatch.setattr(
        compiler, "compile_library", lambda *_: content + os.urandom(8)
    )  # bytes after a library's end mean nothing
    with ThreadPoolExecutor(6) as pool:
        records = list(pool.map(lambda _: build.build(), range(12)))
    assert again(monkeypatch).origin == "cached" and not caplog.messages
    assert all((cache / record["library"]).exists() for record in records)


# ---- what is not trusted -------------------------------------------------------------------------------------------------


def damage_library(path, record):
    """(name, what is done to the library) pairs."""
    return {
        "truncated": lambda: os.truncate(path, 4096),
        "empty": lambda: os.truncate(path, 0),
        "a flipped bit": lambda: path.write_bytes(
            path.read_bytes()[:5000] + bytes([path.read_bytes()[5000] ^ 1]) + path.read_bytes()[5001:]
        ),
        "text": lambda: path.write_text("not a library"),
        "missing": path.unlink,
        "a link": lambda: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
        "a folder's link": lambda: (path.unlink(), path.symlink_to("/")),
        "a pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "writable by others": lambda: path.chmod(0o666),
        "record empty": lambda: record.write_text(""),
        "record without keys": lambda: record.write_text("{}"),
        "record is a list": lambda: record.write_text("[1]"),
        "record of other sources": lambda: edit(record, sources="0" * 64),
        "record names a path": lambda: edit(record, library="../other.so"),
        "record is huge": lambda: record.write_text("[" * 10**6),
    }


def edit(record, **changes):
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


@needs_compiler
@pytest.mark.parametrize("what", damage_library(Path(), Path()))
def test_a_damaged_library_is_compiled_anew_with_one_line(cache, compiled, monkeypatch, caplog, what):
    path = Path(build.library_info().path)
    damage_library(path, next(cache.glob("*.json")))[what]()
    with caplog.at_level(logging.WARNING, "bac"):
        info = again(monkeypatch)
    assert info.origin == "built" and len(compiled) == 2
    assert len(caplog.messages) == 1 and "compiled anew" in caplog.messages[0] and str(cache) in caplog.messages[0]
    assert again(monkeypatch).origin == "cached" and not Path(info.path).is_symlink()


@needs_compiler
@pytest.mark.parametrize("pattern", ["*.so", "*.json"])
def test_a_folder_in_the_place_of_a_file_is_named(cache, compiled, monkeypatch, caplog, pattern):
    build.library()
    path = next(cache.glob(pattern))
    path.unlink()
    path.mkdir()
    with pytest.raises(build.CacheError, match=re.escape(str(cache))):
        again(monkeypatch)
    assert f"{path.name} is a folder" in caplog.text
    path.rmdir()
    assert again(monkeypatch).origin == "built"


@needs_compiler
def test_a_damaged_library_without_compiler_says_both(cache, compiled, monkeypatch):
    os.truncate(build.library_info().path, 100)
    without_compilers(monkeypatch)
    with pytest.raises(
        build.CompilerMissing, match=r"(?s)found no compiler.*cannot be used: .*not the file that was stored"
    ):
        again(monkeypatch)


@needs_compiler
def test_a_library_with_other_structures_is_not_used(cache, compiled, monkeypatch, caplog):
    build.library()
    monkeypatch.setattr(structs, "layout", lambda: [structs.ABI + 1])
    with pytest.raises(build.NativeError, match="lays out its structures in another way"):
        again(monkeypatch)
    assert "compiled anew" in caplog.text


@needs_compiler
def test_a_foreign_library_is_not_used(cache, compiled, monkeypatch, tmp_path):
    """Sound, stored with its own hash, but without the functions."""
    source = tmp_path / "foreign.cpp"
    source.write_text('extern "C" int other() { return 1; }')
    foreign = tmp_path / "foreign.so"
    subprocess.run([*compiler.find_compiler(), "-shared", "-fPIC", "-o", foreign, source], check=True)
    monkeypatch.setattr(compiler, "compile_library", lambda *_: foreign.read_bytes())
    with pytest.raises(build.NativeError, match="is not a native library of this project"):
        build.library()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_refused(cache, mode):
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(build.CacheError, match="can be written by others .*set BAC_CACHE to a folder of your own"):
        build.library()
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("linked", [False, True])
def test_a_cache_of_another_user_is_refused(cache, tmp_path, linked):
    target = tmp_path / "theirs"
    target.mkdir(mode=0o700)
    os.chown(target, 4242, -1)
    cache.symlink_to(target) if linked else target.rename(cache)
    with pytest.raises(build.CacheError, match=r"belongs to another user \(4242\)"):
        build.library()


@needs_compiler
def test_a_cache_that_cannot_be_made_is_an_error_with_advice(cache, compiled, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("BAC_CACHE", str(folder))
        with pytest.raises(
            build.CacheError, match=r"cannot be (opened as a folder|created) \(Not a directory\).*set BAC_CACHE"
        ):
            build.library()


@needs_compiler
def test_a_full_disk_is_an_error_with_advice(cache, compiled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(build.CacheError, match=r"cannot be written \(No space left on device\): set BAC_CACHE"):
        build.library()
    assert list(cache.iterdir()) == []


@needs_compiler
def test_the_umask_does_not_make_the_cache_unsafe(cache, compiled, monkeypatch):
    before = os.umask(0)
    try:
        monkeypatch.setenv("BAC_CACHE", str(cache / "below"))
        build.library()
    finally:
        os.umask(before)
    assert again(monkeypatch).origin == "cached"
    assert not any(path.stat().st_mode & 0o022 for path in (cache, *cache.rglob("*")))


# ---- prebuilt ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(cache, compiled, tmp_path, monkeypatch):
    """A folder with a prebuilt library; no compiler any more."""
    folder = tmp_path / "shipped"
    build.build(folder)
    without_compilers(monkeypatch)
    monkeypatch.setenv("BAC_PREBUILT", str(folder))
    return folder


@needs_compiler
def test_a_prebuilt_library_needs_neither_compiler_nor_cache(shipped, cache, monkeypatch):
    info = again(monkeypatch)
    assert info.origin == "prebuilt" and Path(info.path).parent == shipped and not cache.exists()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (shipped, *shipped.iterdir()))  # others may use it


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"needs": ["avx9000"]}, "needs avx9000, which this processor lacks"), ({"machine": "riscv64"}, "for riscv64, this is"),
     ({"sources": "0" * 64}, "another version of this project"), ({"sha256": "0" * 64}, "not the file that was stored"),
     ({"unknown_needs": ["avx10"], "processor": "another"}, "very kind of processor it was built on")],
)  # fmt: skip
def test_a_prebuilt_library_that_does_not_fit_is_refused_with_the_reason(shipped, monkeypatch, changes, reason):
    edit(next(shipped.glob("*.json")), **changes)
    with pytest.raises(build.NativeError, match=rf"(?s)BAC_PREBUILT=.*no library to use here.*{reason}"):
        again(monkeypatch)


@needs_compiler
def test_of_several_prebuilt_libraries_the_one_that_uses_most_of_the_processor_is_taken(shipped, monkeypatch):
    record = json.loads(next(shipped.glob("*.json")).read_text())
    for name, needs in (("less", []), ("more", sorted(processor.features())), ("too-much", ["avx9000"])):
        (shipped / f"denoiser-{name}.json").write_text(json.dumps({**record, "needs": needs, "compiler": name}))
    assert again(monkeypatch).compiler == "more"


@needs_compiler
def test_an_unsafe_missing_or_empty_prebuilt_folder_is_refused(shipped, tmp_path, monkeypatch):
    shipped.chmod(0o777)
    with pytest.raises(build.CacheError, match="can be written by others"):
        again(monkeypatch)
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "none", "No such file"), (tmp_path / "empty", "it holds no library")):
        monkeypatch.setenv("BAC_PREBUILT", str(folder))
        with pytest.raises(build.NativeError, match=message):
            again(monkeypatch)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names an x86 processor")
def test_the_features_a_library_needs_follow_from_the_options():
    command = compiler.find_compiler()
    known, unknown = processor.needed(compiler.added_macros(command, "x86-64-v3"))
    assert {"avx2", "fma", "f16c", "bmi2"} <= known and "avx512f" not in known and not unknown
    assert processor.needed(compiler.added_macros(command, "x86-64")) == (set(), set())
    assert "avx2" in processor.needed(compiler.added_macros([*command, "-mavx2"], "x86-64"))[0]
    assert processor.needed(compiler.added_macros(command, "native"))[0] <= processor.features()
    assert processor.needed({"__AVX77__", "__tune_znver9__", "__RDSEED__"}) == (set(), {"avx77"})


# ---- the command -----------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.slow
def test_build_command_makes_a_folder_to_ship(tmp_path):
    call = [sys.executable, "-m", "bac", "build", "--output", str(tmp_path / "ship")]
    built = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0 and f"BAC_PREBUILT={tmp_path / 'ship'}" in built.stdout, built.stderr
    code = "from bac.native import build; print(build.library_info().origin)"
    used = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "BAC_PREBUILT": str(tmp_path / "ship"),
            "PATH": "/nowhere",
            "BAC_CACHE": str(tmp_path / "c"),
        },
    )
    assert used.stdout == "prebuilt\n" and not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--march", "x86-64-v3"], "give --output FOLDER"), (["--march", "x;y", "--output", "f"], "not the name of a processor"),
     (["--march", "no-such-processor", "--output", "f"], "does not know -march=no-such-processor"),
     (["--output", "/dev/null/f"], "another folder")],
)  # fmt: skip
@needs_compiler
def test_what_the_build_command_refuses(cache, compiled, capsys, arguments, message):
    assert command.main(["build", *arguments]) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_the_command_tells_its_version(capsys):
    assert command.main(["--version"]) == 0 and build.sources_digest()[:12] in capsys.readouterr().out
    assert command.main([]) == 2
