"""Single findings of the doctor, and how they are shown."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
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
from bac_workbench.doctor.runner import run_check
from tests.conftest import ROOT


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


# ---- what is shown ----


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
