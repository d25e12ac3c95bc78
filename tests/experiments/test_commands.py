"""The scripts as a user starts them: exit codes and messages."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command(script, *arguments, **env):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env}, timeout=120,
    )


@pytest.mark.parametrize("arguments, says", [
    (["task=pusht_highdim"], "pusht_lowdim"),
    (["task=pusht_lowdim", "cache=magic"], "blockwise_acs"),
    (["task=pusht_lowdim", "checkpoint=nowhere/latest.ckpt", "device=cpu"], "no checkpoint at nowhere/latest.ckpt"),
])
def test_wrong_names_exit_with_an_error_that_lists_the_right_ones(arguments, says, tmp_path):
    result = command("eval.py", *arguments, f"output_dir={tmp_path}/out")
    assert result.returncode != 0
    text = result.stdout + result.stderr
    assert says in text and "Traceback" not in text
    assert len(text.splitlines()) < 40


def test_train_starts_trains_and_resumes(tmp_path, pusht_zarr):
    arguments = ["task=pusht_lowdim", "device=cpu", f"output_dir={tmp_path}", f"task.dataset.zarr_path={pusht_zarr}",
                 "task.policy.model.n_layer=1", "task.policy.model.n_emb=32", "training.batch_size=8", "training.log_every=1",
                 "training.validate_every=0", "training.save_every=2", "training.checkpoint_every=2"]
    first = command("train.py", *arguments, "training.max_steps=2")
    assert first.returncode == 0, first.stderr
    second = command("train.py", *arguments, "training.max_steps=4")
    assert "resuming" in second.stdout and "at step 2" in second.stdout
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000004"]


def test_train_without_data_says_how_to_get_it(tmp_path):
    result = command("train.py", "task=pusht_lowdim", f"output_dir={tmp_path}/out", f"task.dataset.zarr_path={tmp_path}/none")
    assert result.returncode == 1 and "scripts/download_data.py task=pusht_lowdim" in result.stderr
    assert not (tmp_path / "out").exists()


def test_compare_usage():
    assert command("compare.py").returncode != 0
