"""Native libraries that are shipped in a folder, and the command that makes one."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bac import command
from bac.native import build, compiler, processor
from tests.bac.native_library import again, edit, without_compilers
from tests.bac.tiny_policies import needs_compiler
from tests.conftest import ROOT


@pytest.fixture
def shipped(library_cache, compiler_commands, tmp_path, monkeypatch):
    """A folder with a prebuilt library; no compiler any more."""
    folder = tmp_path / "shipped"
    build.build(folder)
    without_compilers(monkeypatch)
    monkeypatch.setenv("BAC_PREBUILT", str(folder))
    return folder


@needs_compiler
def test_a_prebuilt_library_needs_neither_compiler_nor_cache(shipped, library_cache, monkeypatch):
    info = again(monkeypatch)
    assert info.origin == "prebuilt" and Path(info.path).parent == shipped and not library_cache.exists()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (shipped, *shipped.iterdir()))  # others may use it


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"needs": ["avx9000"]}, "needs avx9000, which this processor lacks"),
        ({"machine": "riscv64"}, "for riscv64, this is"),
        ({"sources": "0" * 64}, "another version of this project"),
        ({"sha256": "0" * 64}, "not the file that was stored"),
        ({"unknown_needs": ["avx10"], "processor": "another"}, "very kind of processor it was built on"),
    ],
)
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
    known, unknown = processor.needed(compiler.added_macros([*command, "-march=x86-64-v3"]))
    assert {"avx2", "fma", "f16c", "bmi2"} <= known and "avx512f" not in known and not unknown
    assert processor.needed(compiler.added_macros(command)) == (set(), set())
    assert "avx2" in processor.needed(compiler.added_macros([*command, "-mavx2"]))[0]
    assert processor.needed(compiler.added_macros([*command, "-march=native"]))[0] <= processor.features()
    assert processor.needed({"__AVX77__", "__tune_znver9__", "__RDSEED__"}) == (set(), {"avx77"})


# ---- the command -----------------------------------------------------------------------------------------------------


@needs_compiler
def test_build_command_makes_a_folder_to_ship(tmp_path, library_cache, compiler_commands, capsys):
    """The compiler gives what it gave when a test first needed the library."""
    assert command.main(["build", "--output", str(tmp_path / "ship")]) == 0 and len(compiler_commands) == 1
    assert f"BAC_PREBUILT={tmp_path / 'ship'}" in capsys.readouterr().out
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
    [
        (["--output", "/dev/null/f"], "another folder"),
    ],
)
@needs_compiler
def test_what_the_build_command_refuses(library_cache, compiler_commands, capsys, arguments, message):
    assert command.main(["build", *arguments]) == 1
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_the_command_tells_its_version(capsys):
    assert command.main(["--version"]) == 0 and build.sources_digest()[:12] in capsys.readouterr().out
    assert command.main([]) == 2
    typed = subprocess.run([sys.executable, "-m", "bac", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert typed.returncode == 0 and build.sources_digest()[:12] in typed.stdout, typed.stderr
