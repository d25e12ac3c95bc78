"""collect_lerobot_data.py: its modes, the documented layout, and its refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from bac_workbench.released.collect_command import main
from tests.conftest import ROOT
from tests.released.conftest import CHECKPOINT, SHORT

SHORTLY = [*SHORT, "n_envs=2", "n_workers=0"]
FOLDER = "assets/pusht_lowdim/optimal_steps/cosine"
OPTIMAL = ("--use_bac", "--cache_mode", "optimal", "--optimal_steps_dir", FOLDER, "--metric", "cosine")


def door(*arguments: str, output: str = "datas/lerobot/pusht") -> dict:
    """Collects two short episodes; what the collection says of itself."""
    flags = ["--checkpoint", str(CHECKPOINT), "--output_dir", output, "--num_episodes", "2", "--device", "cpu"]
    main([*flags, *arguments, *SHORTLY])
    return json.loads(Path(output, ".collection", "settings.json").read_text())


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["--output_dir", "datas/x", *arguments, "threads=1"])
    message = capsys.readouterr().err
    assert caught.value.code == 1 and "Traceback" not in message and len(message.splitlines()) < 12
    assert not Path("datas").exists()
    return message


def test_without_acceleration_it_writes_the_documented_layout(checkpoint, capsys):
    assert door()["cache"] == "full"
    folder = Path("datas/lerobot/pusht")
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    episodes = [f"episodes/episode_00000{i}/{name}" for i in (0, 1) for name in ("metadata.json", "videos/")]
    assert [path for path in written if not path.startswith(".")] == [
        "dataset_summary.json",
        *[name + "episode_video.mp4" * name.endswith("/") for name in episodes],
        "episodes_data.parquet",
    ]
    said = capsys.readouterr().out
    assert "bac collect task=pusht_lowdim" in said and "format=original" in said and "cache=full" in said


def test_the_modes_choose_the_method(prepared, place):
    shutil.copytree(prepared, place, dirs_exist_ok=True, symlinks=True)
    assert door("--use_bac", output="a")["cache"] == "uniform_every5"  # the released defaults
    threshold = door("--use_bac", "--cache_mode", "threshold", "--cache_threshold", "4", output="b")
    assert threshold["cache"] == "uniform_every4"
    repaired = door(*OPTIMAL, "--num_caches", "3", "--num_bu_blocks", "2", output="c")
    assert repaired["cache"] == "bac_s3_k2"
    assert door("--use_bac", "--cache_mode", "original", output="d")["cache"] == "full"


def test_the_door_writes_a_lerobot_data_set_and_runs_as_it_is_typed(checkpoint):
    command = [sys.executable, str(ROOT / "scripts" / "collect_lerobot_data.py"), "--checkpoint", str(checkpoint)]
    command += ["--output_dir", "data set", "--num_episodes", "1", "--device", "cpu", "--format", "lerobot"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
    done = subprocess.run([*command, *SHORTLY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    info = json.loads(Path("data set", "meta", "info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["total_episodes"] == 1 and info["fps"] == 10


def test_flags_that_contradict_each_other(checkpoint, capsys):
    at = ("--checkpoint", str(checkpoint))
    assert "--cache_mode is read with --use_bac only" in refusal(capsys, *at, "--cache_mode", "threshold")
    assert "--num_caches is read with --use_bac only" in refusal(capsys, *at, "--num_caches", "5")
    assert "needs --optimal_steps_dir" in refusal(capsys, *at, "--use_bac", "--cache_mode", "optimal")
    assert "flag of --cache_mode threshold" in refusal(capsys, *at, *OPTIMAL, "--cache_threshold", "5")
    assert "from 1 on" in refusal(capsys, *at, "--num_episodes", "0")
    assert "did you mean --num_episodes" in refusal(capsys, *at, "--num_episode", "3")
    assert "use one of lerobot, original" in refusal(capsys, *at, "--format", "zarr")
    assert "leave one of them out" in refusal(capsys, *at, "--use_bac", "--cache_mode", "threshold", "cache=bac")
    assert "there is no such folder" in refusal(capsys, *at, *OPTIMAL)
