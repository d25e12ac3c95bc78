"""The rooms of the workbench import one way only: a room knows those to its right, and no other."""

from __future__ import annotations

import ast

import pytest

from tests.conftest import ROOT

WORKBENCH = ROOT / "experiments" / "bac_workbench"
ROOMS = (
    "commands",
    "doctor",
    "training",
    "benchmark",
    "evaluation",
    "timing",
    "caching",
    "profiling",
    "setup",
    "downloads",
    "tracking",
    "settings",
)


def rank(room: str) -> int:
    """Position from left to right; what is no room, such as console, is right of all."""
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def imported_rooms(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("bac_workbench.")}


@pytest.mark.parametrize("path", sorted(WORKBENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(WORKBENCH)))
def test_no_room_imports_one_to_its_left(path):
    own = path.relative_to(WORKBENCH).parts[0].removesuffix(".py")
    left = {room for room in imported_rooms(path.read_text()) if rank(room) < rank(own)}
    assert not left, f"{own} imports {', '.join(sorted(left))}"
