"""A training of seconds on made-up Block Pushing demonstrations."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.stored_demos import write_replay_buffer
from tests.conftest import ROOT

SMALL = [
    "task=block_pushing",
    "device=cpu",
    "task.policy.model.n_emb=16",
    "task.policy.model.n_layer=1",
    "task.policy.model.n_head=2",
    "task.dataset.effector_noise=0",
    "task.dataset.symmetries=false",
    "task.dataset.windows.val_ratio=0.2",
    "training.precision=fp32",
    "training.batch_size=16",
    "training.warmup_steps=2",
    "training.log_every=1",
    "training.save_every=2",
    "training.checkpoint_every=5",
    "training.validate_every=0",
    "training.max_steps=8",
]


def demonstrations(path: Path, seed: int = 0, episodes: int = 4) -> None:
    """Writes episodes whose action is a bent function of the observation."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(0.2, 0.4, (episodes, 30, 16)).astype(np.float32)
    write_replay_buffer(path, [{"obs": o, "action": 0.03 * np.sin(15 * o[:, :2])} for o in obs], {})


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def logged_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def script(arguments: list[str]) -> list[str]:
    """The command line of a training."""
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
