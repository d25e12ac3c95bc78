"""The doctor: true rows for what is here, what is absent and what is broken, and no failure that hides another."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

import pytest
import torch

from bac_workbench.doctor import compute, machine, packages
from bac_workbench.doctor.report import as_json, show, summary
from bac_workbench.doctor.rows import (
    FAIL,
    MISSING,
    PASS,
    Row,
    first_line,
    installed_requirements,
    requirements,
    system_library,
)
from bac_workbench.doctor.runner import CHECKS, run_check, run_checks

ROOT = Path(__file__).resolve().parents[2]
SIMULATORS = (
    "pymunk",
    "pygame",
    "shapely",
    "cv2",
    "opencv",
    "pybullet",
    "mujoco",
    "robosuite",
    "gymnasium_robotics",
    "h5py",
    "wandb",
)


def doctor(
    *arguments: str, cwd: Path = ROOT, python: str = sys.executable, first: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """Runs the script with this checkout on its path, whatever is installed; what is in `first` hides other packages."""
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


# ---- the whole --------------------------------------------------------------------------------------------------------


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


# ---- one failure hides no other ---------------------------------------------------------------------------------------


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
    """Nothing but the core can be imported: the optional parts are not installed, each with its command, and nothing fails."""
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


# ---- single findings --------------------------------------------------------------------------------------------------


def test_requirements_are_those_of_the_project():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    core, extras = pyproject["tool"]["bac-workbench"]["dependencies"], pyproject["project"]["optional-dependencies"]
    assert requirements() == {"": core, **extras}


def test_requirements_of_an_installed_wheel_are_those_of_its_metadata():
    lines = [
        "torch==2.13.0",
        'pygame==2.5.2; python_version < "3.13" and extra == "pusht"',
        'wandb==0.31.0; extra == "wandb"',
    ]
    assert installed_requirements(lines, ["pusht", "wandb", "lerobot"]) == {
        "": ["torch==2.13.0"],
        "pusht": ['pygame==2.5.2; python_version < "3.13"'],
        "wandb": ["wandb==0.31.0"],
        "lerobot": [],
    }


def test_another_version_is_shown_with_the_command_and_is_not_needed(monkeypatch):
    real = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: "1.2.3" if name == "torch" else real(name))
    rows = {row.item: row for row in packages.packages()}
    row = rows["version of torch"]
    assert row.state == FAIL and not row.bad and row.found.startswith("1.2.3, pinned is ==") and "torch==" in row.repair
    assert rows["packages: core"].state == PASS


def test_a_missing_core_package_is_needed(monkeypatch):
    monkeypatch.setattr(packages, "installed", lambda name: None)
    rows = {row.item: row for row in packages.packages()}
    assert rows["packages: core"].bad and "torch" in rows["packages: core"].found
    assert not rows["packages: extra pusht"].bad and rows["packages: extra pusht"].state == MISSING


def test_bundled_policies_are_compared_with_their_profiles(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "SHIPPED", tmp_path)
    source = ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100"
    digest = json.loads((ROOT / "assets" / "pusht_lowdim" / "profile.json").read_text())["checkpoint_hash"]
    for task, expected in {"sound": digest, "other": "0" * 64, "damaged": digest, "unknown": None}.items():
        shutil.copytree(source, tmp_path / "checkpoint" / task / "ddpm100")
        if expected is not None:
            (tmp_path / "assets" / task).mkdir(parents=True)
            (tmp_path / "assets" / task / "profile.json").write_text(json.dumps({"checkpoint_hash": expected}))
    weights = tmp_path / "checkpoint" / "damaged" / "ddpm100" / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    rows = {row.item: row for row in compute.checkpoints()}
    assert {task: rows[f"policy {task}"].state for task in ("sound", "other", "damaged", "unknown")} == {
        "sound": PASS,
        "other": FAIL,
        "damaged": FAIL,
        "unknown": PASS,
    }
    assert "is of 000000000000" in rows["policy other"].found and "truncated" in rows["policy damaged"].found
    assert "checkout -- checkpoint/other assets/other" in rows["policy other"].repair


def test_a_gpu_that_torch_does_not_see_is_shown_and_not_needed(tmp_path, monkeypatch):
    driver = tmp_path / "version"
    driver.write_text("")
    monkeypatch.setattr(compute, "NVIDIA", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    row = compute.torch_and_gpus()[1]
    assert row.state == FAIL and not row.bad and "torch sees no GPU" in row.found and row.repair


def test_the_limit_of_a_container_is_read_in_both_versions(tmp_path, monkeypatch):
    second, first, free = (tmp_path / name for name in ("v2", "v1", "free"))
    for folder in (second, first, free):
        folder.mkdir()
    (second / "cpu.max").write_text("150000 100000\n")
    (first / "cpu.cfs_quota_us").write_text("400000\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    (free / "cpu.max").write_text("max 100000\n")
    for folders, limit in (([second, first, free], 1.5), ([first], 4.0), ([free], None), ([tmp_path], None)):
        monkeypatch.setattr(machine, "_cgroups", lambda folders=folders: folders)
        assert machine.cgroup_cpus() == limit


@pytest.mark.parametrize("asked, state", [("1", PASS), ("1,1", PASS), ("100000", FAIL), ("many", FAIL)])
def test_threads_that_do_not_fit_the_cores_are_shown(asked, state, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    (row,) = machine.cpu()
    assert row.state == state and not row.bad
    assert row.repair.startswith("export OMP_NUM_THREADS=") == (state == FAIL)


def test_more_threads_than_the_container_may_use_are_shown(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "cgroup_cpus", lambda: 1.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    (row,) = machine.cpu()
    assert (
        row.state == FAIL and "4 threads would share 1 cores" in row.found and row.repair == "export OMP_NUM_THREADS=1"
    )


def test_write_access_looks_at_the_nearest_folder_and_leaves_no_file(tmp_path):
    assert machine.write_problem(tmp_path / "a" / "b") is None and list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in machine.write_problem(tmp_path / "file" / "below")
    assert machine.write_problem(Path("/proc/nowhere")) is not None or not Path("/proc").exists()


def test_full_disks_need_repair(monkeypatch):
    monkeypatch.setattr(machine, "SPACE", 1e18)
    (row,) = machine.disk()
    assert row.bad and "free space in" in row.repair


def test_a_renderer_that_cannot_be_is_named_with_the_way_back(monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.setenv("MUJOCO_GL", "chalk")
    (row,) = run_check("renderer")
    assert row.bad and "MUJOCO_GL=chalk" in row.found and row.repair == "unset MUJOCO_GL"


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    row = run_check("native")[1]
    assert row.state == FAIL and "no-such-compiler" in row.found and row.repair.startswith("unset CXX")


@pytest.mark.parametrize(
    "name", ["pusht", "blockpush", "kitchen", "lift", "renderer", "video", "wandb", "native", "torch"]
)
def test_what_is_installed_here_passes(name):
    rows = run_check(name)
    assert [row for row in rows if row.bad] == []
    assert all(row.repair for row in rows if row.state == MISSING)


# ---- what is shown ----------------------------------------------------------------------------------------------------


def test_rows_survive_brackets_and_json(capsys):
    rows = [
        Row("a [bold]b[/]", "x [/] y", PASS),
        Row("c", "d", FAIL, "pip install -e '.[x]'", needed=False),
        Row("e", "", MISSING, "f"),
    ]
    show(rows, 1.0)
    text = capsys.readouterr().out
    assert (
        "a [bold]b[/]" in text and "x [/] y" in text and "pip install -e '.[x]'" in text and "fail (not needed)" in text
    )
    assert summary(rows, 1.0) == "1 pass, 1 fail, 1 not installed; 1 s; all that is needed works"
    assert [Row(**row) for row in json.loads(as_json(rows, 1.0))["rows"]] == rows and json.loads(as_json(rows, 1.0))[
        "ok"
    ]
    assert not json.loads(as_json([Row("a", "b", FAIL)], 1.0))["ok"]


def test_missing_system_libraries_name_their_package():
    assert (
        system_library("libGL.so.1: cannot open shared object file: No such file or directory") == "apt install libgl1"
    )
    assert system_library("libfoo-2.so.7: cannot open shared object file") == "install the system library libfoo-2.so"
    assert system_library("something else") is None
    assert first_line(ValueError("a\nb")) == "ValueError: a" and first_line("") == "no message"
