"""From a LeRobot data set to a trained policy, screened settings, and a schedule that it acts by."""

from __future__ import annotations

import json

import torch
from hydra import compose, initialize_config_dir

from bac import Schedule, accelerate
from bac_workbench.commands.profile import profile_policy
from bac_workbench.commands.train import train
from bac_workbench.commands.tune import tune_policy
from bac_workbench.lerobot.collection import collect
from bac_workbench.settings.recordings import with_task
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.checkpoint import load_policy
from tests.tiny_policy import CONFIG


def test_a_dataset_becomes_a_trained_and_tuned_policy(settings, composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = collect(load_experiment(settings("n_episodes=5", "scene=false")), say=lambda line: None).output_dir
    small = ["n_layer=2", "n_emb=16", "n_head=2"]
    train(
        composed(
            "train", "dataset=lerobot", f"dataset.path={data}", f"output_dir={tmp_path}/training",
            "training.max_steps=2", "training.batch_size=4", "training.precision=fp32",
            *[f"task.policy.model.{item}" for item in small],
        )
    )  # fmt: skip
    checkpoint = tmp_path / "training" / "checkpoints" / "step-000002"
    recorded = [f"checkpoint={checkpoint}", f"observations=lerobot:{data}", f"output={tmp_path}/arm"]
    quick = [*recorded, "threads=1", "profile.n_observations=2", "profile.noise_seeds=[0]"]

    def taskless(command: str, *overrides: str):
        with initialize_config_dir(CONFIG, version_base="1.3"):
            return compose(command, with_task([*quick, "device=cpu", *overrides], command))

    profile_policy(taskless("profile_blocks", "schedules=[bac_s5]"))
    tune_policy(
        taskless(
            "tune", "candidates=[full@ddim4,bac_s5]", "runtime=planned", f"output_dir={tmp_path}/tuning",
            "screen.n_states=2", "screen.n_samples=2", "timing.n_chunks=2", "timing.warmup=0",
        )
    )  # fmt: skip
    screened = (tmp_path / "tuning" / "screen.json").read_text()
    assert "full@ddim4" in screened and "bac_s5" in screened and json.loads(screened)
    policy = load_policy(checkpoint).policy
    (made,) = (tmp_path / "arm").rglob("schedules/bac_s5.json")
    schedule = Schedule.load(made)
    with accelerate(policy, schedule) as fast:
        action = fast.predict_action(policy.random_observation(1, torch.Generator().manual_seed(0)))["action"]
    assert torch.isfinite(action).all() and fast.report().block_updates == schedule.update_count
