"""The doctor: true rows for what is here, what is absent and what is broken, and no failure that hides another."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from bac_workbench.doctor.rows import (
    FAIL,
    MISSING,
    PASS,
    requirements,
)
from bac_workbench.doctor.runner import CHECKS, run_checks
from tests.conftest import ROOT
from tests.experiments.simulators import SIMULATORS


def doctor(
    *arguments: str, cwd: Path = ROOT, python: str = sys.executable, first: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """Runs the script with this checkout on its path; what is in `first` hides other packages."""
    folders = [*([] if first is None else [first]), ROOT, ROOT / "experiments"]
    return subprocess.run(
        [python, str(ROOT / "scripts" / "doctor.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        timeout=120,
    )


def rows_of(result: subprocess.CompletedProcess) -> dict[str, dict]:
    assert "Traceback" not in result.stderr, result.stderr
    return {row["item"]: row for row in json.loads(result.stdout)["rows"]}


def package(folder: Path, name: str, text: str) -> Path:
    """A package that stands before the installed one on PYTHONPATH."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


# ---- the whole ----


def test_every_check_can_be_called():
    for check in CHECKS.values():
        module, function = check.function.split(":")
        assert callable(getattr(importlib.import_module(f"bac_workbench.doctor.{module}"), function))
        assert check.extra in requirements()


def test_it_runs_from_any_folder_and_leaves_nothing_there(tmp_path):
    result = doctor("only=python,packages,cpu,write,disk,git", "--json", cwd=tmp_path)
    rows = rows_of(result)
    assert result.returncode == 0 and rows["Python"]["state"] == PASS
    assert rows["write access: results"]["found"] == str(tmp_path / "results")
    assert rows["write access: assets"]["found"] == str(tmp_path / "assets")
    assert list(tmp_path.iterdir()) == []


def test_the_table_fits_a_terminal_that_is_not_utf8(tmp_path):
    result = doctor("only=python,disk", PYTHONIOENCODING="ascii")
    assert result.returncode == 0 and "disk space" in result.stdout and "all that is needed works" in result.stdout


@pytest.mark.slow
def test_all_checks_answer_in_the_order_of_the_report():
    rows = run_checks(CHECKS)
    items = [row.item for row in rows]
    ordered = [
        "Python",
        "packages: core",
        "torch",
        "processor",
        "native library",
        "policy pusht_lowdim",
        "Push-T",
        "Block Pushing",
        "Kitchen",
        "robomimic Lift",
        "renderer EGL",
        "renderer OSMesa",
        "renderer in use",
        "video",
        "wandb",
        "disk space",
        "git",
    ]
    assert sorted(map(items.index, ordered)) == list(map(items.index, ordered))
    assert [row for row in rows if row.bad] == []


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["only=magic"], "there is no check 'magic'; use python, "),
        (["magic"], "unknown argument 'magic': use only=, timeout= or json="),
        (["task=pusht_lowdim"], "unknown argument 'task=pusht_lowdim'"),
        (["timeout=0"], "timeout=0: use a number of seconds above 0"),
        (["timeout=soon"], "timeout=soon: use a number of seconds above 0"),
        (["json=1"], "json=1: use json=true or json=false"),
        (["only=cpu", "only=disk"], "only= is given twice"),
    ],
)
def test_wrong_arguments_exit_with_status_2(arguments, says):
    result = doctor(*arguments)
    assert result.returncode == 2 and says in result.stderr and result.stdout == ""


def test_help_names_every_check():
    result = doctor("--help")
    assert result.returncode == 0 and all(name in result.stdout for name in CHECKS)


# ---- one failure hides no other ----


def test_a_crash_and_a_hang_are_rows_and_the_others_are_there(tmp_path):
    pytest.importorskip("pymunk")
    pytest.importorskip("pybullet")
    package(tmp_path, "pymunk", "import os; os.kill(os.getpid(), 11)")
    package(tmp_path, "pybullet", "import time; time.sleep(60)")
    started = time.monotonic()
    result = doctor("only=cpu,pusht,blockpush,disk", "timeout=8", "--json", first=tmp_path)
    rows = rows_of(result)
    assert time.monotonic() - started < 40
    assert result.returncode == 1 and json.loads(result.stdout)["ok"] is False
    assert (
        rows["Push-T"]["state"] == FAIL
        and "SIGSEGV" in rows["Push-T"]["found"]
        and "pymunk==" in rows["Push-T"]["repair"]
    )
    assert rows["Block Pushing"]["found"] == "no answer within 8 s" and "timeout=16" in rows["Block Pushing"]["repair"]
    assert rows["disk space"]["state"] == PASS and "processor" in rows


def test_what_a_check_started_ends_with_it(tmp_path):
    pytest.importorskip("pymunk")
    package(
        tmp_path,
        "pymunk",
        f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
time.sleep(60)
""",
    )
    doctor("only=pusht", "timeout=10", first=tmp_path)
    stat = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_broken_core_package_is_reported_without_it(tmp_path):
    package(
        tmp_path,
        "torch",
        'raise ImportError("libgomp.so.1: cannot open shared object file: No such file or directory")',
    )
    package(tmp_path, "rich", 'raise ImportError("rich is broken")')
    result = doctor("only=torch,native,checkpoints,disk", first=tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stdout.count("libgomp.so.1") == 3 and "repair: apt install libgomp1" in result.stdout
    assert (
        "[pass] disk space" in result.stdout
        and "needs repair: torch, native library, bundled policies" in result.stdout
    )


def test_the_core_alone_is_a_sound_installation(tmp_path):
    """Only the core can be imported: optional parts are not installed, each with its command, and nothing fails."""
    core = tmp_path / "core"
    core.mkdir()
    for entry in {
        path.name: path for key in ("purelib", "platlib") for path in Path(sysconfig.get_paths()[key]).iterdir()
    }.values():
        if (
            not entry.name.lower().startswith((*SIMULATORS, "bac_diffusion", "bac_workbench", "__editable__"))
            and entry.suffix != ".pth"
        ):
            (core / entry.name).symlink_to(entry)
    venv.create(tmp_path / "venv", symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    work = tmp_path / "work"
    work.mkdir()
    result = doctor(
        "only=packages,pusht,blockpush,kitchen,lift,egl,renderer,video,wandb",
        "json=true",
        cwd=work,
        python=python,
        first=core,
    )
    rows = rows_of(result)
    assert result.returncode == 0, rows
    assert rows["packages: core"]["state"] == PASS == rows["video"]["state"]
    for item, extra in {
        "Push-T": "pusht",
        "Block Pushing": "blockpush",
        "Kitchen": "kitchen",
        "robomimic Lift": "robomimic",
        "renderer in use": "kitchen",
        "wandb": "wandb",
        "packages: extra wandb": "wandb",
    }.items():
        assert rows[item]["state"] == MISSING
        assert rows[item]["repair"] == f"{python} -m pip install -e '{ROOT}[{extra}]'"
    assert list(work.iterdir()) == []
