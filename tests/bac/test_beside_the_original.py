"""The library alone in an environment of the original project, whose package it must not shadow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT

STAND_IN = ROOT / "tests" / "original_project"


def test_a_policy_is_profiled_accelerated_and_timed_where_the_original_is(tmp_path):
    (tmp_path / "bac").symlink_to(ROOT / "bac")  # nothing else of this project is there
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{STAND_IN}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(STAND_IN / "journey.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["diffusion_policy"] == str(STAND_IN / "diffusion_policy") and said["bac"] == str(ROOT / "bac")
    assert not (STAND_IN / "diffusion_policy" / "__init__.py").exists()
    assert said["difference"] < 1e-4 and said["updates"] == said["scheduled"] < 600
    assert said["full"] > 1.5 * said["cached"], "measured by turns"
