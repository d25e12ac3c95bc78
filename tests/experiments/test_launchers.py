"""Launchers: what a command line may ask of them, how cells share a machine, and what becomes of each cell."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hydra.core.global_hydra import GlobalHydra

from bac_workbench.settings.composition import config_folder
from bac_workbench.settings.launch import check_command_line
from bac_workbench.sweeps import launchers
from bac_workbench.sweeps.cell import Ended, in_cell
from bac_workbench.sweeps.launchers import set_up, shares
from bac_workbench.sweeps.outcomes import FAILED, FINISHED, THERE, Records
from bac_workbench.sweeps.sweep import Sweep, composed
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked
from tests.conftest import ROOT
from tests.experiments.composed_settings import checked

HOLDER = """
import sys, time
from diffusion_policy.common.lock import locked
with locked(sys.argv[1], "a killed sweep"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "line, message",
    [
        (["cache=bac", "launcher=joblib"], "launcher=joblib: it runs the cells of a sweep: add -m"),
        (["-m", "seed=0,1", "launcher=joblib,ray"], "one launcher runs all cells"),
        (["-m", "seed=0,1", "launcher.jobs=2"], "launcher=basic runs one after the other"),
        (["-m", "seed=0,1", "launcher=jobli"], "launcher=jobli: use one of .* did you mean joblib"),
        (["-m", "seed=0,1", "launcher=joblib", "launcher.jobs=0"], "launcher.jobs=0: use a whole number"),
        (["-m", "seed=0,1", "hydra/launcher=joblib"], "write launcher=joblib"),
    ],
)
def test_what_no_launcher_can_do_is_refused_before_anything_runs(line, message, monkeypatch):
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=message):
        check_command_line(["task=pusht_lowdim", *line], "eval")


@pytest.mark.parametrize("name", ["joblib", "slurm", "submitit_local", "ray"])
def test_a_missing_launcher_is_named_with_what_brings_it(name, monkeypatch):
    monkeypatch.setattr(launchers.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=rf"launcher={name}: it is not installed: make setup EXTRAS="):
        check_command_line(["-m", "task=pusht_lowdim", "seed=0,1", f"launcher={name}"], "eval")


@pytest.mark.parametrize(
    "n_cores, jobs, cells, at_once, each", [(16, 4, 9, 4, 4), (2, 8, 9, 8, 1), (16, None, 3, 3, 5)]
)
def test_cells_on_one_machine_share_its_cores(here, monkeypatch, n_cores, jobs, cells, at_once, each):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(launchers, "cores", lambda: n_cores)
    given = ["task=pusht_lowdim", "launcher=joblib", *([f"launcher.jobs={jobs}"] if jobs else [])]
    with config_folder():
        cfg = composed(GlobalHydra.instance().hydra, "eval", given)
    share = set_up(cfg, cells, Records(here, cells))
    assert (share.at_once, share.cores, cfg.hydra.launcher.n_jobs) == (at_once, each, at_once)
    assert shares(cfg, given, share) == [f"threads={each}", f"eval.n_workers={each}"]
    assert shares(cfg, [*given, "threads=7"], share) == [f"eval.n_workers={each}"]
    assert checked("eval", *given, *shares(cfg, given, share)).threads == each


def test_every_outcome_of_a_cell_is_told_and_none_stops_the_others(here, capsys):
    """The lock of a folder that another process writes to is waited for."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(here / "x")], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"

    def job(cfg, number):
        assert in_cell()
        if number == 0:
            raise ConfigError("this cannot work")
        if number == 1:
            raise ZeroDivisionError("a bug")
        if number == 2:
            raise SystemExit(3)
        if number == 3:
            threading.Timer(0.5, holder.kill).start()
            with locked(here / "x", "a cell"):
                return Ended("waited")
        return Ended("kept", was_there=True)

    with config_folder():
        hydra = GlobalHydra.instance().hydra
        cells = [["task=pusht_lowdim", f"seed={n}"] for n in range(5)]
        cfg = composed(hydra, "eval", cells[0])
        outcomes, records = Sweep(hydra, cfg, cells, job, [(n,) for n in range(5)], list("abcde")).run()
    holder.wait()
    holder.stdout.close()
    assert [outcome.state for outcome in outcomes] == [FAILED, FAILED, FAILED, FINISHED, THERE]
    assert [outcome.note for outcome in outcomes] == [
        "this cannot work",
        "ZeroDivisionError: a bug",
        "it ended with status 3",
        "waited",
        "kept",
    ]
    said = capsys.readouterr().out
    assert "Traceback" in said and "waiting: " in said and not in_cell()
    assert records.all() == outcomes


def test_a_launcher_that_breaks_down_runs_the_rest_and_then_each_begun_cell_by_itself(here, monkeypatch):
    handed: list[list[int]] = []

    def launch(self, batch, share, records):
        """As a pool of processes: cell 1 kills its process, with which all that run are lost."""
        handed.append(list(batch))
        for cell in batch[:3]:
            records.write(cell, "running")
        if 1 in batch:
            return RuntimeError("a process died\nand more")
        for cell in batch:
            records.write(cell, FINISHED)
        return None

    monkeypatch.setattr(Sweep, "_launch", launch)
    with config_folder():
        hydra = GlobalHydra.instance().hydra
        cells = [["task=pusht_lowdim", f"seed={n}"] for n in range(5)]
        outcomes, _ = Sweep.over(hydra, "eval", cells, lambda cfg: None).run()
    assert handed == [[0, 1, 2, 3, 4], [3, 4], [0], [1], [2]]
    assert [outcome.state for outcome in outcomes] == [FINISHED, FAILED, FINISHED, FINISHED, FINISHED]
    assert outcomes[1].note == "its process died: RuntimeError: a process died"
