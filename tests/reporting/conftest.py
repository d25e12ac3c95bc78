"""Reports of the kept results of docs/results and of planted evaluations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bac_workbench.commands import report
from tests.docs.pages import ROOT
from tests.experiments.stored_runs import draws, stored, timed

RESULTS = ROOT / "docs" / "results"


def run_report(*arguments: object) -> None:
    """`bac report` with these arguments, in this process."""
    before = sys.argv
    sys.argv = ["bac report", *map(str, arguments)]
    try:
        report.main()
    finally:
        sys.argv = before


@pytest.fixture(scope="session")
def kept_report(tmp_path_factory) -> Path:
    """The folder of a report on docs/results, without pictures."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("kept")
    run_report(RESULTS, f"output_dir={folder}", f"assets_dir={ROOT / 'assets'}", "pictures=false")
    return folder


@pytest.fixture
def reported(tmp_path) -> Callable[..., Path]:
    """reported('videos_mb=1', ...) -> the folder of a report on the evaluations under tmp_path/results."""
    pytest.importorskip("plotly")

    def make(*settings: str) -> Path:
        output = tmp_path / "report"
        run_report(tmp_path / "results", f"output_dir={output}", f"assets_dir={tmp_path / 'assets'}", *settings)
        return output

    return make


@pytest.fixture
def evaluations(tmp_path) -> Path:
    """results/pusht of a full policy, Uniform, BAC and S-ACS, timed, with successes and a video of one seed."""
    folder = tmp_path / "results" / "pusht"
    runs = {"full": ("full", 1.0, 14.0, 70.0), "uniform": ("uniform_s10", 0.3, 1.7, 10.0)}
    runs |= {"bac": ("bac_s10", 0.6, 2.7, 15.0), "sacs": ("sacs_s10", 0.9, 2.7, 14.0)}
    for place, (name, (method, rate, gflop, ms)) in enumerate(runs.items()):
        scores = draws(place, 40, rate)
        path = stored(folder, name, method, scores, gflop, successes=scores, task="pusht")
        timed(path, ms, 700 / ms)
        (folder / name / "media").mkdir()
        for seed in (100, 101):
            (folder / name / "media" / f"test_{seed}.mp4").write_bytes(f"{name} {seed} ".encode() * 1000)
    return folder
