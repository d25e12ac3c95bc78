"""Sweeps of real, tiny evaluations: a cell fails, the sweep is killed, and the same command goes on."""

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

pytest.importorskip("pymunk")

CELLS = ["task=pusht_lowdim", "seed=0,1,2", "cache=full", "sampler=ddim3", "output_dir=results/seed${seed}"]
TINY = ["eval.n_test=3", "eval.n_envs=1", "eval.n_workers=0", "eval.n_videos=0", "benchmark.n_chunks=0", "threads=1"]
FAILING, OTHERS = "seed1", {"seed0", "seed2"}


class Sweep:
    """Starts the command in a folder whose cell `FAILING` cannot run: another evaluation is there."""

    def __init__(self, folder: Path, checkpoint: Path):
        self.folder = folder
        self.command = [sys.executable, "-m", "bac_workbench.commands.main", "eval", "-m", *CELLS, *TINY]
        self.command += [f"checkpoint={checkpoint}"]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
        self.env |= {"OMP_NUM_THREADS": "1"}
        self.foreign = folder / "results" / FAILING / "eval_results.json"
        self.foreign.parent.mkdir(parents=True)
        self.foreign.write_text("{}")

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=240)
        return process.returncode, said

    def killed(self, *arguments: str) -> None:
        """Begins, and is killed as soon as an episode has ended."""
        process = self.start(*arguments)
        until = time.monotonic() + 120
        while not list(self.folder.glob("results/*/episodes.jsonl")):
            assert time.monotonic() < until and process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def cells_still_there(self) -> list[int]:
        """Processes of cells, as their records name them, that have not ended."""
        records = [json.loads(path.read_text()) for path in self.folder.glob("results/.sweeps/*/*.json")]
        return [record["pid"] for record in records if Path(f"/proc/{record['pid']}").exists()]

    def episodes(self) -> dict[str, list[int]]:
        """The folder of each finished evaluation -> the indices of its episodes."""
        found = {}
        for path in self.folder.glob("results/*/eval_results.json"):
            if path != self.foreign or path.read_text() != "{}":
                lines = (path.parent / "episodes.jsonl").read_text().splitlines()
                found[path.parent.name] = sorted(json.loads(line)["index"] for line in lines)
        return found


@pytest.fixture
def sweep(tmp_path, checkpoint) -> Sweep:
    return Sweep(tmp_path, checkpoint)


def end_after_a_kill(sweep: Sweep, launcher: str) -> None:
    arguments = [f"launcher={launcher}", "launcher.jobs=2"]
    sweep.killed(*arguments)
    status, said = sweep.run(*arguments)  # while processes of the killed one may still write
    assert status == 1 and "1 failed" in said and "holds another evaluation" in said, said
    assert sweep.episodes() == dict.fromkeys(OTHERS, [0, 1, 2])


@pytest.mark.slow
def test_on_submitit_a_failing_cell_and_a_kill_leave_a_complete_sweep(sweep):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    end_after_a_kill(sweep, "submitit_local")


@pytest.mark.slow
def test_on_joblib_too_and_then_only_what_failed_runs_again(sweep):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    end_after_a_kill(sweep, "joblib")
    assert sweep.cells_still_there() == [], "processes of the killed sweep stayed"
    assert list((sweep.folder / "results" / ".sweeps").glob("*/*.log")), "what failed keeps what it said"
    sweep.foreign.unlink()
    written = {path: path.stat().st_mtime_ns for path in sweep.folder.glob("results/*/eval_results.json")}
    status, said = sweep.run()
    assert status == 0 and "3 cells: 1 finished, 2 already there" in said, said
    assert sweep.episodes() == dict.fromkeys({*OTHERS, FAILING}, [0, 1, 2])
    assert written == {path: path.stat().st_mtime_ns for path in written}
