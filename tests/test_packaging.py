"""Two distributions, the library and the workbench. Dependencies are pinned once, and every other file agrees."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
BENCHMARKS = {"pusht", "blockpush", "kitchen", "robomimic", "robomimic-reference"}
EXTRAS = BENCHMARKS | {"lerobot", "hub", "wandb", "report", "serve", "sweeps", "ray", "docs", "dev", "all"}
CODE = ("bac", "diffusion_policy", "experiments", "scripts")
OWN = {"bac", "bac_workbench", "diffusion_policy", "docs", "door", "speed", "stress", "tests"}
# Import name -> distribution name, where they differ by more than - and _.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "hydra": "hydra-core", "yaml": "PyYAML"}
# Tools of those who work on the project; pytest brings the one, the build backend is the other.
BESIDE_PYTEST = {"packaging", "setuptools"}
# scripts/check_lerobot.py runs its second half in an environment that has this package and not this project.
ELSEWHERE = {"lerobot"}

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINS = PYPROJECT["tool"]["bac-workbench"]["dependencies"]
LIBRARY = tomllib.loads((ROOT / "bac" / "pyproject.toml").read_text())


def requirements(*extras: str) -> list[Requirement]:
    """Requirements of the core and of `extras`, without references of the project to itself."""
    lines = [*PINS, *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [item for item in map(Requirement, lines) if item.name != PROJECT["name"]]


def imported(folders: tuple[str, ...], everywhere: bool) -> dict[str, str]:
    """Distribution -> a file that imports it; `everywhere` includes imports inside functions."""
    found: dict[str, str] = {}
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree) if everywhere else tree.body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                local = any((ROOT / "tests").rglob(f"{name}.py"))  # a helper of tests
                if name not in sys.stdlib_module_names | OWN | BESIDE_PYTEST and not local:
                    found[DISTRIBUTIONS.get(name, name.replace("_", "-"))] = str(path)
    return found


def test_every_requirement_is_pinned_exactly():
    for item in requirements(*EXTRAS):
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(item.specifier)), f"{item} is not an exact pin"


@pytest.mark.parametrize("python", PYTHONS)
def test_one_version_of_a_package_per_python(python):
    assert python in SpecifierSet(PROJECT["requires-python"])
    versions: dict[str, set[str]] = {}
    for item in requirements(*EXTRAS):
        if item.marker is None or item.marker.evaluate(
            {"python_version": python, "python_full_version": f"{python}.1"}
        ):
            versions.setdefault(item.name, set()).add(str(item.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert set(versions) == {item.name for item in requirements(*EXTRAS)}


def test_extras_are_the_promised_ones_and_all_has_those_that_users_need():
    assert set(PROJECT["optional-dependencies"]) == EXTRAS
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.name == PROJECT["name"] and everything.extras == EXTRAS - {
        "all",
        "docs",
        "ray",
        "robomimic-reference",
    }


def test_the_code_imports_only_what_is_listed():
    listed = {item.name for item in requirements(*EXTRAS)}
    packages = imported(CODE + ("tests",), everywhere=True)
    assert {name: path for name, path in packages.items() if name not in listed | ELSEWHERE} == {}


def test_modules_outside_the_environments_import_only_the_core():
    core = {item.name for item in requirements()}
    packages = imported(("bac", "diffusion_policy"), everywhere=False)
    assert {name: path for name, path in packages.items() if name not in core and "/env/" not in path} == {}


def test_every_core_requirement_is_imported():
    assert {item.name for item in requirements()} - set(imported(CODE, everywhere=True)) == set()


def files_of(folder: Path) -> list[Path]:
    """Without what building needs and leaves behind, and what running does."""
    made = ("__pycache__", "build")
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "setup.py"]
    return [path for path in paths if not any(part in made or part.endswith(".egg-info") for part in path.parts)]


def packages_in(folder: Path, root: Path) -> set[str]:
    return {".".join(path.parent.relative_to(root).parts) for path in files_of(folder) if path.suffix == ".py"}


def test_every_file_of_the_workbench_is_part_of_a_listed_package():
    find = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    data = {
        path
        for package, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / "experiments" / package.replace(".", "/")).glob(pattern)
    }
    assert find["namespaces"] is True  # folders without __init__.py count, too
    for package, root in (("diffusion_policy", ROOT), ("bac_workbench", ROOT / "experiments")):
        assert root.relative_to(ROOT).as_posix() in find["where"]
        names = packages_in(root / package, root)
        assert [name for name in names if not any(fnmatchcase(name, pattern) for pattern in find["include"])] == []
        assert [path for path in files_of(root / package) if path.suffix != ".py" and path not in data] == []
    assert {pattern.split(".")[0] for pattern in find["include"]} == {"diffusion_policy", "bac_workbench"}


def test_every_module_and_source_file_of_the_library_is_part_of_its_distribution():
    setuptools = LIBRARY["tool"]["setuptools"]
    assert set(setuptools["packages"]) == packages_in(ROOT / "bac", ROOT)
    data = {path for pattern in setuptools["package-data"]["bac"] for path in (ROOT / "bac").glob(pattern)}
    own = {ROOT / "bac" / name for name in ("pyproject.toml", "LICENSE")}
    assert {path for path in files_of(ROOT / "bac") if path.suffix != ".py"} == data | own


def test_both_distributions_have_one_version_and_licence():
    library = LIBRARY["project"]
    assert library["version"] == PROJECT["version"] and library["license"] == PROJECT["license"]
    assert (ROOT / "bac" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_library_takes_ranges_that_hold_the_pinned_versions():
    pins = {item.name: str(item.specifier).removeprefix("==") for item in requirements()}
    extras = [line for lines in LIBRARY["project"]["optional-dependencies"].values() for line in lines]
    for item in map(Requirement, [*LIBRARY["project"]["dependencies"], *extras]):
        assert pins[item.name] in item.specifier and "==" not in str(item.specifier)


def test_the_workbench_brings_the_library_of_its_checkout_or_asks_for_its_version(monkeypatch):
    monkeypatch.setattr("setuptools.setup", lambda **settings: None)
    dependencies = runpy.run_path(str(ROOT / "setup.py"))["dependencies"]
    monkeypatch.delenv("BAC_LIBRARY_BY_VERSION", raising=False)
    assert dependencies() == [f"bac-diffusion @ {(ROOT / 'bac').as_uri()}", *PINS]
    monkeypatch.setenv("BAC_LIBRARY_BY_VERSION", "1")
    assert dependencies() == [f"bac-diffusion=={PROJECT['version']}", *PINS]


def test_the_shared_package_has_no_init_where_the_original_project_has_none():
    """One such file would hide all modules of the original project from an environment that holds both."""
    found = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "diffusion_policy").rglob("__init__.py")}
    assert found == {"diffusion_policy/demos", "diffusion_policy/env/kitchen", "diffusion_policy/env/pusht"}


def test_conda_environment_takes_its_pins_from_the_project():
    packages = yaml.safe_load((ROOT / "conda_environment.yaml").read_text())["dependencies"]
    (python,) = [item for item in packages if isinstance(item, str) and item.startswith("python=")]
    assert python.split("=")[1] in PYTHONS and "pip" in packages and len(packages) == 3
    ((line,),) = [item["pip"] for item in packages if isinstance(item, dict)]
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", line).group(1).split(",")
    assert set(extras) <= EXTRAS


def test_hints_in_the_code_name_existing_extras():
    calls = [
        node.args[1].value
        for path in (ROOT / "diffusion_policy").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "import_extra"
        and isinstance(node.args[1], ast.Constant)
    ]
    assert calls and set(calls) <= EXTRAS


# ---- Makefile ----
def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env={**os.environ, **environment}, text=True, capture_output=True, timeout=60
    )


def test_make_help_names_every_target():
    help_text = make("help").stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    assert all(f"make {target}" in help_text for target in targets if target != "help")
    assert all(extra in help_text for extra in EXTRAS)


def test_make_installs_only_what_each_target_needs():
    assert "pip install" in make("-n", "demo", "VENV=.none").stdout
    assert '(-e ".[pusht]" -e ./bac)' in make("-n", "demo", "VENV=.none").stdout
    assert '(-e ".[pusht,dev]" -e ./bac)' in make("-n", "test", "VENV=.none").stdout
    assert '(-e ".[pusht,wandb]" -e ./bac)' in make("-n", "setup", "VENV=.none", "EXTRAS=pusht,wandb").stdout


def test_make_refuses_an_unsupported_python(tmp_path):
    result = make("setup", f"VENV={tmp_path / 'venv'}", "PYTHON=/nowhere/python")
    assert result.returncode != 0 and "3.11 to 3.13" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_tests_through_make():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and "make test" in script.read_text()
