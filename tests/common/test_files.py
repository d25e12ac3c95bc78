"""Files that are complete or not there, whoever writes and whenever it is killed."""

import os
import subprocess
import sys
import threading

import pytest

from diffusion_policy.common import files
from diffusion_policy.common.files import atomic_path, leftovers, temporary_name, write_json
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def not_looked_through():
    files._cleaned.clear()


def test_a_failed_write_leaves_the_file_of_before(tmp_path):
    write_json(tmp_path / "a.json", {"kept": 1})
    before = (tmp_path / "a.json").read_text()
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a.json").read_text() == before and [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_threads_at_one_file_do_not_meet(tmp_path):
    def write(letter):
        for _ in range(50):
            with atomic_path(tmp_path / "a") as temporary:
                temporary.write_text(letter * 10_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set((tmp_path / "a").read_text()) in ({"x"}, {"y"}, {"z"}) and (tmp_path / "a").stat().st_size == 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, signal, sys
from diffusion_policy.common.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_running_ones_is_not(tmp_path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], cwd=ROOT).returncode == -9
    left = leftovers(tmp_path)
    assert len(left) == 1 and left[0].read_text() == "half"
    running = temporary_name(tmp_path / "b")
    running.touch()
    other_host = tmp_path / left[0].name.replace(f".{files._host()}-", ".00000000-")
    other_host.touch()
    foreign = [tmp_path / ".thesis.tmp", tmp_path / ".a.1.tmp"]
    for path in foreign:
        path.touch()
    write_json(tmp_path / "c.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {
        running.name,
        other_host.name,
        "c.json",
        *(path.name for path in foreign),
    }


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("renamed"), replace(a, b))[1])
    write_json(tmp_path / "a.json", {})
    assert [event == "renamed" or event.endswith(".tmp") for event in events] == [True, True, False] and events[
        1
    ] == "renamed"
