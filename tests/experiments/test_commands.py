"""The scripts as a user starts them: exit codes and messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.dataset.stored_demos import write_replay_buffer

ROOT = Path(__file__).resolve().parents[2]


def command(script, *arguments, **env):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["task=pusht_highdim"], "pusht_lowdim"),
        (["task=pusht_lowdim", "cache=magic"], "blockwise_acs"),
        (["task=pusht_lowdim", "checkpoint=nowhere/latest.ckpt", "device=cpu"], "no checkpoint at nowhere/latest.ckpt"),
    ],
)
def test_wrong_names_exit_with_an_error_that_lists_the_right_ones(arguments, says, tmp_path):
    result = command("eval.py", *arguments, f"output_dir={tmp_path}/out")
    assert result.returncode != 0
    text = result.stdout + result.stderr
    assert says in text and "Traceback" not in text
    assert len(text.splitlines()) < 40


@pytest.fixture
def small_zarr(tmp_path):
    """Three short made-up Push-T demonstrations."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "keypoint": rng.uniform(0, 512, (20, 9, 2)).astype(np.float32),
            "state": rng.uniform(0, 512, (20, 5)).astype(np.float32),
            "action": rng.uniform(0, 512, (20, 2)).astype(np.float32),
        }
        for _ in range(3)
    ]
    write_replay_buffer(tmp_path / "demos.zarr", episodes, {})
    return tmp_path / "demos.zarr"


def test_train_starts_trains_scores_and_resumes(tmp_path, small_zarr):
    pytest.importorskip("pymunk")
    arguments = [
        "task=pusht_lowdim",
        "device=cpu",
        f"output_dir={tmp_path}/out",
        f"task.dataset.zarr_path={small_zarr}",
        "task.policy.model.n_layer=1",
        "task.policy.model.n_emb=32",
        "training.batch_size=8",
        "training.log_every=1",
        "training.validate_every=0",
        "training.save_every=2",
        "training.checkpoint_every=2",
        "task.policy.num_inference_steps=4",
        "rollout.n_episodes=2",
        "rollout.n_envs=2",
        "task.environment.max_steps=8",
    ]
    first = command("train.py", *arguments, "training.max_steps=2")
    assert first.returncode == 0, first.stderr
    second = command("train.py", *arguments, "training.max_steps=4")
    assert "resuming" in second.stdout and "at step 2" in second.stdout
    assert "rollout_score" in second.stdout and (tmp_path / "out" / "best" / "policy.safetensors").exists()
    assert sorted(p.name for p in (tmp_path / "out" / "checkpoints").iterdir()) == ["step-000002", "step-000004"]


def test_train_starts_from_a_trained_policy_of_the_same_model_only(tmp_path, checkpoint, small_zarr):
    arguments = [
        "task=pusht_lowdim",
        "device=cpu",
        f"output_dir={tmp_path}/out",
        f"task.dataset.zarr_path={small_zarr}",
        "training.batch_size=8",
        "training.max_steps=1",
        "training.learning_rate=0.0",
        f"init_checkpoint={checkpoint}",
    ]
    small = ["task.policy.model.n_layer=2", "task.policy.model.n_emb=32"]
    result = command("train.py", *arguments, *small)
    assert result.returncode == 0 and f"starting from EMA weights of {checkpoint}" in result.stdout, result.stderr
    trained, start = load_policy(tmp_path / "out" / "checkpoints" / "step-000001"), load_policy(checkpoint)
    assert trained.hash == start.hash  # nothing learned at a rate of 0
    assert torch.equal(trained.policy.normalizer["obs"].scale, start.policy.normalizer["obs"].scale)
    result = command(
        "train.py",
        *arguments,
        "task.policy.model.n_layer=1",
        "task.policy.model.n_emb=32",
        f"output_dir={tmp_path}/other",
    )
    assert result.returncode == 1 and "is another model" in result.stderr and "Traceback" not in result.stderr


def test_train_without_data_says_how_to_get_it(tmp_path):
    result = command(
        "train.py", "task=pusht_lowdim", f"output_dir={tmp_path}/out", f"task.dataset.zarr_path={tmp_path}/none"
    )
    assert result.returncode == 1 and "bac data download task=pusht_lowdim" in result.stderr
    assert not (tmp_path / "out").exists()


def test_compare_usage():
    assert command("compare.py").returncode != 0


@pytest.mark.parametrize(
    "script, arguments, says",
    [
        ("profile_blocks.py", ["schedules=[bac_s999]"], "cache.budget=999 is not possible: use 1 to 100"),
        ("profile_blocks.py", ["schedules=[bac_s4@ddim16]"], "names a sampler"),
        ("benchmark.py", ["+sampler.steps=50"], "methods=[full@ddim16]"),
    ],
)
def test_impossible_schedules_and_samplers_are_refused_before_measuring(script, arguments, says, checkpoint, tmp_path):
    result = command(
        script,
        "task=pusht_lowdim",
        f"checkpoint={checkpoint}",
        "device=cpu",
        f"assets_dir={tmp_path}/assets",
        *arguments,
    )
    assert result.returncode == 1 and says in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "assets").exists()
