"""`bac reproduce` for real, with few and short episodes: killed, it goes on, and what eval has stored counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny_policy import save_tiny_policy

pytest.importorskip("pymunk")
pytest.importorskip("plotly")

SHORT = ["task.environment.max_steps=16", "eval.n_envs=2", "eval.n_workers=0", "threads=1", "device=cpu"]
SHORT += ["profile.n_episodes=1", "profile.n_observations=2", "profile.noise_seeds=[0]"]
ASKED = ["--tasks", "pusht_lowdim", "--seeds", "0", "tables=[1]", "budgets=[10]", "further=[full@ddim3]", "n_test=2"]
ASKED += ["n_chunks=1", "runtime=planned", "pictures=false", *SHORT]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory) -> str:
    """A tiny random policy, as `bac eval` is told of it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return f"checkpoint={save_tiny_policy(folder, 'pusht_lowdim', (0.0, 512.0), (0.0, 512.0))}"


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
    return subprocess.Popen(
        [sys.executable, "-m", "bac_workbench.commands.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(folder, *arguments)
    said, _ = process.communicate(timeout=240)
    return process.returncode, said


def finished(folder: Path) -> dict[str, int]:
    """The name of each finished evaluation -> when it was written."""
    found = folder.glob("paper/results/pusht_lowdim/*/eval_results.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_tables(tmp_path, chosen):
    process = start(tmp_path, "reproduce", *ASKED, chosen)
    until = time.monotonic() + 120
    while not finished(tmp_path):
        assert time.monotonic() < until and process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = finished(tmp_path)
    assert len(before) < 4

    status, said = run(tmp_path, "reproduce", *ASKED, chosen)
    assert status == 0, said
    after = finished(tmp_path)
    assert len(after) == 4 and all(after[name] == when for name, when in before.items())
    paper = tmp_path / "paper"
    text = (paper / "table1.md").read_text()
    for name in ("full policy (DDPM-100)", "Uniform, budget 10", "BAC, budget 10", "DDIM-3", "*paper*: BAC, S=10"):
        assert f"| {name} |" in text
    (cell,) = paper.glob("results/pusht_lowdim/bac-*")
    results = json.loads((cell / "eval_results.json").read_bytes())
    assert f"{results['mean_score']:.3f} [" in text and (paper / "report.html").exists()


@pytest.mark.slow
def test_what_eval_has_stored_is_copied_and_a_dry_run_writes_nothing(tmp_path, chosen):
    cell = ["task=pusht_lowdim", "cache=uniform", "eval.n_test=2", "eval.n_videos=0", "benchmark.n_chunks=0", *SHORT]
    status, said = run(tmp_path, "eval", *cell, chosen)
    assert status == 0, said
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, said = run(tmp_path, "reproduce", *ASKED, chosen, "--dry-run")
    assert status == 0 and "3 missing" in said and "1 there, in results/" in said, said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there
