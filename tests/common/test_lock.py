"""One writer per folder: who is refused, what ends a lock, and what is left."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from diffusion_policy.common import lock as lock_module
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import LOCK_FILE, LockedError, locked, locked_output
from tests.conftest import ROOT

HOLDER = """
import sys, time
from diffusion_policy.common.lock import locked
with locked(sys.argv[1], "evaluation of a toy"):
    print("held", flush=True)
    time.sleep(60)
"""

COUNTER = """
import pathlib, sys, time
from diffusion_policy.common.lock import LockedError, locked
counter = pathlib.Path(sys.argv[1]) / "counter"
done = 0
while done < 20:
    try:
        with locked(sys.argv[1], "counting"):
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))
        done += 1
    except LockedError:
        time.sleep(0.0005)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path / "out"."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_refused_at_once_and_told_who_writes_there(tmp_path, holder):
    started = time.monotonic()
    with pytest.raises(LockedError, match=f"evaluation of a toy, process {holder.pid}, since 20.*another folder"):
        with locked(tmp_path / "out", "another evaluation"):
            raise AssertionError("both write there")
    assert time.monotonic() - started < 1
    with locked(tmp_path / "other", "another evaluation"):
        pass


def test_a_killed_process_leaves_nothing_in_the_way(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_FILE).exists()
    with locked(tmp_path / "out", "the next"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_one_process_may_take_a_lock_again(tmp_path):
    with locked(tmp_path, "outer") as outer:
        with locked(tmp_path / "..", "elsewhere"), locked(tmp_path / ".." / tmp_path.name, "inner") as inner:
            assert inner is outer
        assert (tmp_path / LOCK_FILE).exists()
        outer.check()
    assert not (tmp_path / LOCK_FILE).exists()


def test_an_output_that_is_not_there_yet_is_locked_beside_itself(tmp_path):
    with locked_output(tmp_path / "a.zarr", "demonstrations"):
        assert [path.name for path in tmp_path.iterdir()] == [".a.zarr.lock"]
    assert list(tmp_path.iterdir()) == []


def test_many_processes_never_hold_it_together(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_folder_that_was_removed_or_replaced_is_noticed(tmp_path):
    folder = tmp_path / "out"
    with locked(folder, "training") as lock:
        (folder / LOCK_FILE).unlink()
        folder.rmdir()
        with pytest.raises(ConfigError, match="was removed, or replaced"):
            lock.check()
        folder.mkdir()
        (folder / LOCK_FILE).touch()
        with pytest.raises(ConfigError, match="was removed, or replaced"):
            lock.check()
    assert (folder / LOCK_FILE).exists()  # it is not ours


def test_what_a_lock_file_says_is_no_obstacle(tmp_path):
    for content in (
        b"",
        b"\xff\x00",
        b"[]",
        b'{"pid": 1, "host": "x", "started": "never", "purpose": "long dead"}',
        b"9" * 5000,
    ):
        (tmp_path / LOCK_FILE).write_bytes(content)
        with locked(tmp_path, "next"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    with locked(tmp_path, "parent"):
        child = os.fork()
        if child == 0:
            try:
                time.sleep(20)
            finally:
                os._exit(0)
    try:
        code = "import sys; from diffusion_policy.common.lock import locked\nwith locked(sys.argv[1], 'x'): pass"
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_pointed_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked here .No locks available.: take care"):
        with locked(tmp_path, "training") as lock:
            lock.check()
    monkeypatch.setattr(lock_module, "fcntl", None)
    with pytest.warns(UserWarning, match="no flock"), locked(tmp_path, "training"):
        pass


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file.*choose another folder"), locked(tmp_path / "file", "training"):
        pass
    with pytest.raises(ConfigError, match="choose another folder"), locked("/proc/nowhere", "training"):
        pass
