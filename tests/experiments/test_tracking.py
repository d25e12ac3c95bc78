"""Weights & Biases: one run for one training, however often it is interrupted."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.workspace.small_training import ENV

TRACKED = """
import json, sys
from pathlib import Path
from omegaconf import OmegaConf
from bac_workbench.tracking import start_run
cfg = OmegaConf.create({"wandb": {"mode": "offline", "project": "toy"}})
for resume in (True, True, False):
    run = start_run(cfg, "toy", Path(sys.argv[1]), resume)
    run.log({"loss": 1.0}, step=1)
    run.finish()
    print("id", run.id, flush=True)
"""


def test_a_training_that_goes_on_goes_on_in_its_wandb_run(tmp_path):
    pytest.importorskip("wandb")
    env = {**ENV, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    result = subprocess.run(
        [sys.executable, "-c", TRACKED, str(tmp_path)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    ids = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("id ")]
    assert ids[0] == ids[1] != ids[2] and (tmp_path / "wandb_run").read_text().strip() == ids[2]
    assert {path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")} == set(ids)
