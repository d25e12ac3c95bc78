"""The stress command: that it runs, and that it notices what it is there to notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bac.native import build
from stress import arguments
from stress.findings import Findings
from stress.fuzz import campaign, child, loaders
from stress.fuzz.loaders import Kind, sound
from stress.jobs import checks, kinds
from stress.patience import naps
from stress.workers import spread
from tests.bac.tiny_policies import needs_compiler
from tests.conftest import ROOT

# Gives the library that is there already, after no time; whatever else is asked of it, it is the compiler.
COMPILER = """#!/bin/sh
previous=
for argument; do
    if [ "$previous" = -o ]; then case $argument in
        *.o) : > "$argument"; exit ;;
        *.so) cp {library} "$argument"; exit ;;
    esac; fi
    previous=$argument
done
exec {real} "$@"
"""


def stress(*texts: str, timeout: int = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stress", *texts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


# ---- the command ----
def test_fuzzing_tries_all_that_was_asked_for_and_reports_it(tmp_path):
    result = stress(
        "parts=fuzz", "inputs=600", "kinds=pickle,schedule,npy,zarr 3,episodes", "jobs=1", f"output={tmp_path}"
    )
    report = json.loads((tmp_path / "stress.json").read_text())
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert report["tried"] >= 600 and report["findings"] == [] and report["arguments"]["seed"] == 0
    assert {row["kind"] for row in report["rows"]} >= {"pickle", "schedule", "npy", "zarr 3", "episodes"}
    assert all(row["survived"] == row["tried"] for row in report["rows"])


def test_the_cheapest_job_is_killed_raced_and_starved_of_disk(tmp_path):
    result = stress(
        "parts=kills,races,disks", "kinds=conversion", "kills=1", "races=1", "disks=1", "jobs=1", f"output={tmp_path}"
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert [row["tried"] for row in json.loads((tmp_path / "stress.json").read_text())["rows"]] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("job", [job.name for job in kinds.JOBS if job.name != "conversion"])
def test_every_job_is_killed(job, tmp_path):
    result = stress("parts=kills", f"kinds={job}", "kills=1", "jobs=1", f"output={tmp_path}")
    if "not tried" in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
@needs_compiler
def test_the_native_cache_is_damaged(tmp_path):
    """`make stress` compiles."""
    wrapper = tmp_path / "compiler"
    real, library = " ".join(build.find_compiler()), build.library_info().path
    wrapper.write_text(COMPILER.format(library=library, real=real))
    wrapper.chmod(0o755)
    result = stress("parts=native", "damages=2", "jobs=1", f"output={tmp_path}", CXX=str(wrapper))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
def test_the_policy_server_is_attacked_under_load(tmp_path):
    """Four seconds; usually it is a minute, and docs/reliability.md has ten."""
    result = stress("parts=serve", "serve_seconds=4", f"output={tmp_path}", timeout=300)
    if "not tried" in result.stdout:
        pytest.skip(result.stdout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    rows = {row["kind"]: row for row in json.loads((tmp_path / "stress.json").read_text())["rows"]}
    assert {"8 clients", "malformed", "oversized", "slow", "unauthenticated", "killed in mid-request"} <= set(rows)
    assert all(row["tried"] for row in rows.values())


def test_answers_of_the_policy_server_are_compared():
    process = pytest.importorskip("stress.serving.process")
    actions = np.arange(4.0).reshape(2, 2)
    request = process.Request(b"", actions)
    assert process.problem_of(process.packed({"actions": actions}), request) is None
    assert "wrong" in process.problem_of(process.packed({"actions": actions + 1e-12}), request)
    assert "refused: busy" in process.problem_of("busy", request)


@pytest.mark.parametrize("text", ["inputs=many", "inputs", "parts=nothing", "forked=maybe", "jobs=0", "unknown=1"])
def test_wrong_arguments_are_explained(text):
    with pytest.raises(SystemExit, match="error:"):
        arguments.read([text])


def test_arguments():
    read = arguments.read(["seed=3", "parts=fuzz,native", "inputs=10", "kinds=zarr", "forked=false", "output=x"])
    assert (read.seed, read.parts, read.inputs, read.kinds, read.forked) == (3, ("fuzz", "native"), 10, "zarr", False)
    assert read.output == Path("x").resolve()


# ---- what it must notice ----
def fuzzed(tmp_path: Path, load: Callable[[Path], object], inputs: int = 10) -> tuple[Findings, list]:
    """Findings and rows of a made-up kind whose sound file says `sound`; `load` sees the mutated ones."""

    def write(folder: Path) -> Path:
        (folder / "a.txt").write_bytes(b"sound")
        return folder / "a.txt"

    def loaded(path: Path) -> object:
        return None if path.read_bytes() == b"sound" else load(path)

    findings = Findings(tmp_path / "findings")
    kind = Kind("made up", 1.0, write, loaded, lambda: (ValueError,))
    return findings, campaign.run([kind], inputs, 0, 1, tmp_path / "scratch", findings, lambda text: None)


def refuse(path: Path) -> None:
    raise ValueError("no")


def loop(path: Path) -> None:
    while True:
        pass


def hide_memory(path: Path) -> None:
    try:
        bytearray(2 * child.MEMORY)
    except MemoryError as error:
        raise ValueError("damaged") from error


def test_refused_files_are_no_findings(tmp_path):
    findings, (row,) = fuzzed(tmp_path, refuse)
    assert findings.all == [] and (row.tried, row.survived) == (10, 10)


@pytest.mark.parametrize(
    "load, what, says",
    [
        (lambda path: os.abort(), "death", "signal 6"),
        (lambda path: os._exit(0), "death", "exit status 0"),
        (lambda path: {}["key"], "exception", "KeyError"),
        (lambda path: bytearray(2 * child.MEMORY), "memory", "MemoryError"),
        (hide_memory, "memory", "more than 1 GB was asked for"),
        (lambda path: os.system("true"), "ran code or left its folder", "os.system"),
        (lambda path: (path.parents[2] / "outside").write_text("x"), "ran code or left its folder", "outside"),
    ],
)
def test_what_must_not_happen_is_a_finding_with_its_input(tmp_path, load, what, says):
    findings, (row,) = fuzzed(tmp_path, load)
    assert len(findings.all) == row.findings > 5 and row.tried == 10
    assert {finding.what for finding in findings.all} == {what} and says in findings.all[0].summary
    stored = sorted((tmp_path / "findings").glob("*/input/a.txt"))
    assert 1 <= len(stored) <= 5 and all(path.read_bytes() != b"sound" for path in stored)
    assert "again='made up' seed=0 index=" in findings.all[0].again


def test_a_file_that_takes_too_long_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "SECONDS", 0.3)
    findings, (row,) = fuzzed(tmp_path, loop, inputs=2)
    assert {finding.what for finding in findings.all} == {"time"} and row.tried == 10


def test_a_reader_that_fails_on_the_sound_file_is_an_error_of_the_command(tmp_path):
    def write(folder: Path) -> Path:
        (folder / "a.txt").write_bytes(b"sound")
        return folder / "a.txt"

    kind = Kind("broken", 1.0, write, refuse, lambda: (ValueError,))
    with pytest.raises(RuntimeError, match="'broken' failed by itself"):
        campaign.run([kind], 5, 0, 1, tmp_path / "scratch", Findings(tmp_path / "findings"), lambda text: None)


def test_an_input_depends_on_kind_seed_and_index_alone():
    kind = next(kind for kind in loaders.KINDS if kind.name == "npy")
    first = [child.mutated(kind, 1, index) for index in range(120, 140)]
    sound.cache_clear()
    assert [child.mutated(kind, 1, index) for index in range(120, 140)] == first
    assert [child.mutated(kind, 2, index) for index in range(120, 140)] != first


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", b'{"a": '),
        ("a.jsonl", b'{"a"}\n{}\n'),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.npz", b"PK"),
        ("a.safetensors", b"\x00" * 9),
    ],
)
def test_half_made_files_are_noticed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert [name in problem for problem in checks.half_made(tmp_path)] == [True]
    (tmp_path / name).rename(tmp_path / f".{name}.tmp")  # not its final name
    assert checks.half_made(tmp_path) == [] and len(checks.temporaries(tmp_path)) == 1


def test_results_that_differ_are_named():
    expected = {"rows": [1, 2], "file": {"a": 1, "b": 2}, "gone": 1}
    found = {"rows": [1, 2], "file": {"a": 1, "b": 3}, "new": 1}
    assert kinds.differences(found, expected) == ["gone is missing", "new is there", "file differs in b"]


def test_a_task_that_fails_is_an_error(tmp_path):
    def task(findings: Findings):
        raise KeyError("why")

    with pytest.raises(RuntimeError, match="why"):
        spread([task], 1, tmp_path, Findings(tmp_path))


def test_waiting_counts_its_naps():
    assert sum(1 for _ in naps(0.05)) == 5
