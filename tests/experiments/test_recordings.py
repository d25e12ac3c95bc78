"""A robot's checkpoint with recordings, and no task: to a trust report in three commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bac.schedule import Schedule
from bac_workbench.checking.report import check_replaceable, folder_of, request_of
from bac_workbench.checking.subject import subject_of
from bac_workbench.profiling.profiles import profile_for
from bac_workbench.settings import check
from bac_workbench.settings.recordings import with_task
from bac_workbench.setup.experiment import Experiment, load_experiment
from bac_workbench.tuning.measure import tuning_states
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.dataset.errors import DatasetError
from tests.conftest import ROOT
from tests.recordings import ACTIONS, robot_checkpoint, rows, write_hdf5, write_zarr

MAP = "observations_map={camera0: image}"
QUICK = ["threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    """A folder with latest.ckpt, data.hdf5 and data.zarr."""
    folder, values = tmp_path_factory.mktemp("robot"), rows()
    robot_checkpoint(folder / "latest.ckpt")
    write_hdf5(folder / "data.hdf5", values)
    write_zarr(folder / "data.zarr", values)
    return folder


def bac(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bac_workbench.commands.main", *words]
    paths = f"{ROOT}:{ROOT / 'experiments'}"
    environment = {"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def journey(robot) -> dict[str, subprocess.CompletedProcess[str]]:
    """The three commands; the last one judges on the same recording in another form."""
    policy = ["checkpoint=latest.ckpt", MAP]
    quick = ["profile.n_observations=4", "profile.noise_seeds=[0]", *QUICK]
    judged = ["n_states=3", "n_samples=2", "timing.n_chunks=3", "timing.warmup=0", *QUICK]
    return {
        "inspect": bac(robot, "data", "inspect", "data.hdf5", "checkpoint=latest.ckpt"),
        "profile": bac(
            robot, "profile", *policy, "observations=data.hdf5", "output=peg/", "schedules=[bac_s3]", *quick
        ),
        "check": bac(
            robot, "check", *policy, "observations=data.zarr", "output=peg/", "cache=bac", "cache.budget=3",
            "deadline_ms=100000", "limits.missed=0", "limits.error=1e-9", *judged, *quick[:2],
        ),
    }  # fmt: skip


def test_a_recording_is_inspected(journey):
    done = journey["inspect"]
    assert done.returncode == 0, done.stderr
    assert "5 episodes (28 rows, 4 to 7 in each)" in done.stdout
    assert re.search(r"camera0 +\[3, 240, 320\] +missing", done.stdout) and re.search(r"<- pose", done.stdout)
    assert (
        "bac profile checkpoint=latest.ckpt observations=data.hdf5 'observations_map={camera0: image}'" in done.stdout
    )


def test_a_policy_without_a_task_is_profiled(journey, robot):
    done = journey["profile"]
    assert done.returncode == 0, done.stderr
    schedule = Schedule.load(robot / "peg/schedules/bac_s3.json")
    assert schedule.provenance.observations == 4
    assert schedule.provenance.extras["observations_from"].startswith("episodes 0..3 of 5 of recording")


def test_the_report_is_on_what_was_held_out_and_stands_alone(journey, robot):
    done = journey["check"]
    assert done.returncode == 3, done.stderr  # limits.error cannot be kept
    assert "profiling now" not in done.stdout  # the stored profile is of this recording
    report = json.loads((robot / "peg/check/bac_s3/check.json").read_text())
    assert report["observations"]["judged"].startswith("episodes 4..4 of 5") and report["observations"]["used"] == 3
    assert not report["passed"]
    assert {limit["name"]: limit["broken"] for limit in report["limits"]} == {"error": True, "missed": False}
    assert len(report["action"]["error"]) == ACTIONS and report["action"]["positions"] == 8
    assert all(len(position) == ACTIONS for position in report["action"]["error_by_position"])
    latency = report["latency_ms"]["bac_s3"]
    assert latency["missed"] == 0 and latency["calls"] == 3
    assert latency["encoder"]["p50"] < latency["call"]["p50"] <= latency["call"]["p95"] <= latency["call"]["p99"]
    assert set(report["distances"]) >= {"bac_s3", "full, other noise"}
    html = (robot / "peg/check/bac_s3/check.html").read_text()
    assert len(html) < 400_000 and html.count("data:image/png;base64,") == 3
    assert "http" not in re.sub(r"base64,[^']*", "", html)
    assert all(sentence.split(",")[0] in html for sentence in report["verdict"][:1])


def experiment_of(robot: Path, command: str, *words: str) -> Experiment:
    """What a command does with its command line, up to the experiment; paths are those of the robot's folder."""
    register_resolvers()
    arguments = with_task([f"checkpoint={robot}/latest.ckpt", *QUICK, *words], command)
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        settings = check(compose(command, arguments), command, arguments)
    return load_experiment(settings, needs_simulator=command == "eval")


def on(robot: Path, *words: str) -> list[str]:
    return [MAP, f"observations={robot}/data.hdf5", f"output={robot}/peg", *words]


def test_nothing_is_judged_on_what_it_was_made_from(journey, robot):
    given = f"schedule={robot}/peg/schedules/bac_s3.json"
    assert subject_of(experiment_of(robot, "check", *on(robot, given)), print).name == "bac_s3"
    with pytest.raises(
        ConfigError, match=r"episodes 3\.\.4 are held out .* nothing is judged on what it was made from"
    ):
        subject_of(experiment_of(robot, "check", *on(robot, given, "held_out=0.5")), print)


def test_a_report_of_another_check_is_not_replaced(journey, robot):
    given = f"schedule={robot}/peg/schedules/bac_s3.json"
    subject = subject_of(experiment_of(robot, "check", *on(robot, given)), print)
    assert folder_of(subject) == robot / "peg" / "check" / "bac_s3"
    with pytest.raises(ConfigError, match="holds another check .*n_states"):
        check_replaceable(folder_of(subject), request_of(subject), overwrite=False)
    check_replaceable(folder_of(subject), request_of(subject), overwrite=True)


def test_a_screen_of_candidates_is_on_what_is_held_out(robot):
    experiment = experiment_of(robot, "tune", *on(robot, "screen.n_states=3"))
    observations, states = tuning_states(experiment, None)
    assert states.startswith("episodes 4..4 of 5") and len(observations["pose"]) == 3
    last = rows()["pose"][-6:]
    assert all((last == pose).all(1).any() for pose in observations["pose"][:, -1])


def test_an_episode_is_held_out_or_profiled_and_never_both(robot):
    for share in (0.01, 0.2, 0.5, 0.99):
        recordings = experiment_of(robot, "profile_blocks", *on(robot, f"held_out={share}")).recordings
        assert [*recordings.profiled, *recordings.judged] == list(range(5))
    with pytest.raises(ConfigError, match="leaves nothing of .* to profile on"):
        _ = experiment_of(robot, "profile_blocks", *on(robot, "held_out=1")).recordings.profiled
    with pytest.raises(ConfigError, match="holds nothing of .* out to judge on"):
        _ = experiment_of(robot, "profile_blocks", *on(robot, "held_out=0")).recordings.judged


def test_errors_know_tasks_without_a_simulator(robot):
    with pytest.raises(ConfigError, match="(?s)has no simulator .* bac check checkpoint=.* observations=FILE"):
        experiment_of(robot, "eval")
    with pytest.raises(ConfigError, match="observations=null: name recorded observations"):
        experiment_of(robot, "check", "cache=bac")
    with pytest.raises(ConfigError, match="this is the full policy itself"):
        subject_of(experiment_of(robot, "check", *on(robot)), print)
    with pytest.raises(DatasetError, match="does not hold what the policy sees"):
        experiment_of(robot, "benchmark", f"observations={robot}/data.hdf5")
    with pytest.raises(ConfigError, match="neither a simulator nor a data set .* name a recording with observations="):
        profile_for(experiment_of(robot, "profile_blocks", f"output={robot}/other"))
