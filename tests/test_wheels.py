"""The wheels as somebody gets them: unpacked where nothing can be written, started from an empty folder."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SOURCES = (
    "bac",
    "assets",
    "checkpoint/pusht_lowdim",
    "config",
    "diffusion_policy",
    "experiments",
    "LICENSE",
    "pyproject.toml",
    "setup.py",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
# The wheels alone, not the checkout that the environment of the tests knows.
RUN = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path[:] = [{folders}] + [entry for entry in sys.path if entry and "__editable__" not in entry]
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Both wheels, built from a copy of this checkout without asking an index."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name, **({"ignore": LEFT_OUT} if (ROOT / name).is_dir() else {}))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = {**os.environ, "BAC_LIBRARY_BY_VERSION": "1"}
    subprocess.run([*command, "-w", str(built), "./bac", "."], cwd=source, env=environment, check=True)
    return built


@pytest.fixture(scope="module")
def site(wheels, tmp_path_factory):
    """Both wheels unpacked; nothing can be written there."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(folder), *map(str, wheels.glob("*.whl"))], check=True)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = contents(folder)
    yield folder
    assert contents(folder) == before  # root may write everywhere
    for path in paths:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def python(code: str, cwd: Path, *folders: Path) -> subprocess.CompletedProcess:
    head = RUN.format(folders=", ".join(repr(str(folder)) for folder in folders))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-c", head + code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def bac(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    return python(f"from bac_workbench.commands.main import run; sys.exit(run({list(words)!r}))", cwd, site)


def test_wheels_bring_only_names_of_this_project(wheels):
    names = {}
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as file:
            assert not any(name.endswith("setup.py") for name in file.namelist())
            tops = {name.split("/")[0] for name in file.namelist()}
            names[wheel.name.split("-")[0]] = {top for top in tops if not top.endswith(".dist-info")}
            metadata = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
            required = file.read(metadata).decode()
            assert "file://" not in required
            if wheel.name.startswith("bac_workbench"):
                assert f"Requires-Dist: bac-diffusion=={VERSION}" in required
    assert names == {"bac_diffusion": {"bac"}, "bac_workbench": {"bac_workbench", "diffusion_policy"}}


def test_the_command_works_from_an_empty_folder_and_writes_only_there(site, tmp_path):
    assert (site / "bin" / "bac").is_file()
    result = bac(site, tmp_path, "--version")
    assert result.returncode == 0, result.stderr
    assert f"bac-diffusion {VERSION}, native sources" in result.stdout and f"bac-workbench {VERSION}\n" in result.stdout
    result = bac(site, tmp_path, "eval", "--help")
    assert result.returncode == 0 and "cache= bac, blockwise_acs, full" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_policy_is_evaluated_with_its_shipped_schedule(site, tmp_path):
    pytest.importorskip("pymunk")
    settings = ["eval.n_test=1", "eval.n_envs=1", "eval.n_videos=0", "benchmark.n_chunks=0", "device=cpu"]
    result = bac(site, tmp_path, "eval", "task=pusht_lowdim", "cache=bac", "task.environment.max_steps=16", *settings)
    assert result.returncode == 0, result.stderr
    shipped = "".join(result.stdout.split())  # lines are wrapped
    assert f"schedule:{site}/bac_workbench/shipped/assets/pusht_lowdim/schedules/bac_s10.json" in shipped
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert (tmp_path / "results" / "pusht_lowdim" / "bac" / "eval_results.json").is_file()


def test_kept_results_are_reported_with_shipped_profiles(site, tmp_path):
    pytest.importorskip("plotly")
    result = bac(site, tmp_path, "report", str(ROOT / "docs" / "results"), "output_dir=report", "pictures=false")
    assert result.returncode == 0, result.stderr
    assert "Similarity of block outputs" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_the_library_accelerates_the_shipped_policy(site, tmp_path):
    code = """
import bac, torch
from diffusion_policy.common.checkpoint import load_policy
policy = load_policy("checkpoint/pusht_lowdim/ddpm100", num_inference_steps=2).policy
with bac.accelerate(policy) as fast:
    assert torch.isfinite(fast.predict_action({"obs": torch.zeros(1, 2, 20)})["action"]).all()
"""
    result = python(code, tmp_path, site)
    assert result.returncode == 0, result.stderr


def test_a_policy_that_no_wheel_holds_is_said_to_be_in_the_repository(site, tmp_path):
    result = bac(site, tmp_path, "eval", "task=block_pushing", "device=cpu")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "in this project's repository and not in the installed wheel" in result.stderr
    assert "copy the folder checkpoint/block_pushing" in result.stderr


def test_the_doctor_reads_what_is_needed_from_the_installed_package(site, tmp_path):
    result = bac(site, tmp_path, "doctor", "only=python,packages,write,git")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "as pinned" in result.stdout and "results will name no commit" in result.stdout


def test_beside_the_original_project_both_can_be_imported(site, tmp_path):
    original = tmp_path / "original" / "diffusion_policy" / "model" / "common"
    original.mkdir(parents=True)
    (original / "x.py").write_text("theirs = True\n")
    code = """
import bac
from diffusion_policy.model.common.x import theirs
from diffusion_policy.model.common.normalizer import LinearNormalizer
assert theirs and bac.accelerate and LinearNormalizer
"""
    result = python(code, tmp_path, tmp_path / "original", site)
    assert result.returncode == 0, result.stderr
