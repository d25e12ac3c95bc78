"""What a result says it was made with."""

from __future__ import annotations

import subprocess
from importlib import metadata

import pytest
import torch

from bac_workbench import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository like this one, with one commit."""
    for folder in ("bac", "docs", "config"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("first")
    (tmp_path / ".gitignore").write_text("*.so\n")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path.resolve())
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


def test_a_clean_tree_is_named_by_its_commit_alone(checkout):
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert provenance.commit() == head.strip()
    (checkout / "docs" / "file").write_text("changed")  # decides nothing
    (checkout / "results").mkdir()
    (checkout / "results" / "eval_results.json").write_text("{}")
    (checkout / "bac" / "built.so").touch()  # ignored
    assert provenance.commit() == head.strip()


@pytest.mark.parametrize("path", ["bac/file", "config/file", "config/new", "bac/new/module.py"])
def test_changed_or_new_code_and_configuration_are_told(checkout, path):
    (checkout / path).parent.mkdir(exist_ok=True)
    (checkout / path).write_text("changed")
    assert provenance.commit().endswith("+changes")


def test_outside_a_repository_the_commit_is_unknown(checkout, monkeypatch):
    for elsewhere in (None, checkout / "bac"):
        monkeypatch.setattr(provenance, "CHECKOUT", elsewhere)
        assert provenance.commit() == "unknown"


def test_versions_are_those_of_the_task(monkeypatch):
    pytest.importorskip("pymunk")
    made_with = provenance.environment(torch.device("cpu"), 1, ("pymunk", "shapely", "no_such_module"))
    assert list(made_with["versions"]) == ["torch", "diffusers", "numpy", "gymnasium", "pymunk", "shapely"]
    assert made_with["versions"]["pymunk"] == metadata.version("pymunk")
    assert list(provenance.environment(torch.device("cpu"), 1)["versions"]) == list(provenance.PACKAGES)


def test_a_module_is_named_by_the_package_that_brings_it():
    pytest.importorskip("cv2")
    assert all(name.startswith("opencv-python") for name in provenance.packages_of("cv2"))
    assert provenance.packages_of("yaml") == ["PyYAML"]
