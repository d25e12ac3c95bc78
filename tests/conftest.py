"""What every test may rely on: one thread, no window, no network logging, repeatable hypothesis examples."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import settings

from bac import drawing
from diffusion_policy.env.offscreen import choose_backend

# Before any test imports matplotlib, pygame, wandb or MuJoCo; nothing above does.
os.environ["MPLBACKEND"] = "Agg"
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["WANDB_MODE"] = "disabled"
choose_backend()

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def same_random_numbers():
    """A test draws the same random numbers whichever tests ran before it in its process."""
    torch.manual_seed(0)
    numpy.random.seed(0)
    random.seed(0)


@pytest.fixture(autouse=True)
def keep_denormal_numbers():
    """Training flushes them for the whole process; the tests that follow must not notice."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def one_torch_thread():
    """torch computes with one thread, in this one and, as the initializer of a pool, in others; restored afterwards.

    A new thread does not take over what `torch.set_num_threads` said: its first matrix products run with
    OMP_NUM_THREADS threads (one per core without it), and round differently, until it asks torch for its number or sets
    its own.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda: torch.set_num_threads(1)
    torch.set_num_threads(before)


@pytest.fixture
def quick_pictures(monkeypatch):
    """Small pictures without a layout, for tests that do not look at them: they take half of such tests' time."""
    monkeypatch.setattr(drawing, "DPI", 25)
    monkeypatch.setattr(drawing, "LAYOUT", None)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Vectors computed by the authors' code; its README says what they are."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def pusht_zarr() -> Path:
    """The 206 human Push-T demonstrations: the downloaded copy, or one kept beside the repository."""
    relative = Path("data", "pusht", "pusht_cchi_v7_replay.zarr")
    for folder in (ROOT, ROOT.parent / "shared"):
        if (folder / relative).exists():
            return folder / relative
    pytest.skip("the Push-T demonstrations are not in data/pusht")
