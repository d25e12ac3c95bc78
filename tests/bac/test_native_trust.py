"""The native library is never loaded unless it is what was stored, in a folder that nobody else can write."""

import logging
import os
import re
import subprocess
from pathlib import Path

import pytest

from bac.native import build, compiler, structs
from tests.bac.native_library import again, edit, without_compilers
from tests.bac.tiny_policies import needs_compiler


def replace(path, content):
    """Another file of that name: this process has mapped the old one, and would die of its truncation."""
    path.unlink()
    path.write_bytes(content)


def damage_library(path, record):
    """(name, what is done to the library) pairs."""
    return {
        "truncated": lambda: replace(path, path.read_bytes()[:4096]),
        "empty": lambda: replace(path, b""),
        "a flipped bit": lambda: replace(
            path, path.read_bytes()[:5000] + bytes([path.read_bytes()[5000] ^ 1]) + path.read_bytes()[5001:]
        ),
        "text": lambda: replace(path, b"not a library"),
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


@needs_compiler
@pytest.mark.parametrize("what", damage_library(Path(), Path()))
def test_a_damaged_library_is_compiled_anew_with_one_line(library_cache, compiler_commands, monkeypatch, caplog, what):
    path = Path(build.library_info().path)
    damage_library(path, next(library_cache.glob("*.json")))[what]()
    with caplog.at_level(logging.WARNING, "bac"):
        info = again(monkeypatch)
    assert info.origin == "built" and len(compiler_commands) == 2
    assert len(caplog.messages) == 1
    assert "compiled anew" in caplog.messages[0] and str(library_cache) in caplog.messages[0]
    assert again(monkeypatch).origin == "cached" and not Path(info.path).is_symlink()


@needs_compiler
@pytest.mark.parametrize("pattern", ["*.so", "*.json"])
def test_a_folder_in_the_place_of_a_file_is_named(library_cache, compiler_commands, monkeypatch, caplog, pattern):
    build.library()
    path = next(library_cache.glob(pattern))
    path.unlink()
    path.mkdir()
    with pytest.raises(build.CacheError, match=re.escape(str(library_cache))):
        again(monkeypatch)
    assert f"{path.name} is a folder" in caplog.text
    path.rmdir()
    assert again(monkeypatch).origin == "built"


@needs_compiler
def test_a_damaged_library_without_compiler_says_both(library_cache, compiler_commands, monkeypatch):
    os.truncate(build.library_info().path, 100)
    without_compilers(monkeypatch)
    with pytest.raises(
        build.CompilerMissing, match=r"(?s)found no compiler.*cannot be used: .*not the file that was stored"
    ):
        again(monkeypatch)


@needs_compiler
def test_a_library_with_other_structures_is_not_used(library_cache, compiler_commands, monkeypatch, caplog):
    build.library()
    monkeypatch.setattr(structs, "layout", lambda: [structs.ABI + 1])
    with pytest.raises(build.NativeError, match="lays out its structures in another way"):
        again(monkeypatch)
    assert "compiled anew" in caplog.text


@needs_compiler
def test_a_foreign_library_is_not_used(library_cache, compiler_commands, monkeypatch, tmp_path):
    """Sound, stored with its own hash, but without the functions."""
    source = tmp_path / "foreign.cpp"
    source.write_text('extern "C" int other() { return 1; }')
    foreign = tmp_path / "foreign.so"
    subprocess.run([*compiler.find_compiler(), "-shared", "-fPIC", "-o", foreign, source], check=True)
    monkeypatch.setattr(compiler, "compile_library", lambda *_: foreign.read_bytes())
    with pytest.raises(build.NativeError, match="is not a native library of this project"):
        build.library()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_refused(library_cache, mode):
    library_cache.mkdir()
    library_cache.chmod(mode)
    with pytest.raises(build.CacheError, match="can be written by others .*set BAC_CACHE to a folder of your own"):
        build.library()
    assert list(library_cache.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("linked", [False, True])
def test_a_cache_of_another_user_is_refused(library_cache, tmp_path, linked):
    target = tmp_path / "theirs"
    target.mkdir(mode=0o700)
    os.chown(target, 4242, -1)
    library_cache.symlink_to(target) if linked else target.rename(library_cache)
    with pytest.raises(build.CacheError, match=r"belongs to another user \(4242\)"):
        build.library()


@needs_compiler
def test_a_cache_that_cannot_be_made_is_an_error_with_advice(library_cache, compiler_commands, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("BAC_CACHE", str(folder))
        with pytest.raises(
            build.CacheError, match=r"cannot be (opened as a folder|created) \(Not a directory\).*set BAC_CACHE"
        ):
            build.library()


@needs_compiler
def test_a_full_disk_is_an_error_with_advice(library_cache, compiler_commands, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(build.CacheError, match=r"cannot be written \(No space left on device\): set BAC_CACHE"):
        build.library()
    assert list(library_cache.iterdir()) == []


@needs_compiler
def test_the_umask_does_not_make_the_cache_unsafe(library_cache, compiler_commands, monkeypatch):
    before = os.umask(0)
    try:
        monkeypatch.setenv("BAC_CACHE", str(library_cache / "below"))
        build.library()
    finally:
        os.umask(before)
    assert again(monkeypatch).origin == "cached"
    assert not any(path.stat().st_mode & 0o022 for path in (library_cache, *library_cache.rglob("*")))
