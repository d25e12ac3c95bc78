"""Settings that no training can have, and the policies that one keeps."""

from __future__ import annotations

import pytest

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError


@pytest.mark.parametrize(("precision", "message"), [("tf32", "use fp32 or bf16 on a CPU"), ("fp8", "use bf16, tf32")])
def test_a_precision_that_is_not_there_is_refused(train, precision, message):
    with pytest.raises(ConfigError, match=message):
        train(f"training.precision={precision}")


@pytest.mark.parametrize(
    "override, says",
    [
        ("training.batch_size=-4", "training.batch_size=-4"),
        ("training.batch_size=2.5", "whole number"),
        ("training.weight_decay=-1", "training.weight_decay=-1"),
        ("training.grad_clip=-1", "above 0"),
        ("training.grad_clip=null", "above 0"),
        ("training.snr_gamma=-5", "training.snr_gamma=-5"),
        ("training.snr_gamma=abc", "training.snr_gamma=abc"),
        ("training.lr_schedule=cosin", "cosine or trapezoid"),
        ("training.learning_rate=.nan", "training.learning_rate=.nan"),
        ("training.learning_rate=-1", "training.learning_rate"),
        ("training.betas=[0.9]", "two numbers"),
        ("training.betas=[0.9, 1.0]", "below 1"),
        ("training.log_every=-1", "training.log_every"),
        ("training.max_steps=0", "training.max_steps"),
        ("training.topk=0", "training.topk"),
        ("training.noise_draws=0", "training.noise_draws"),
        ("training.num_workers=-1", "training.num_workers"),
        ("training.num_threads=0", "training.num_threads"),
        ("training.decay_fraction=2", "at most 1"),
        ("seed=-1", "seed=-1"),
        ("seed=1.5", "seed=1.5"),
        ("ema.max_value=2", "ema.max_value=2"),
        ("ema.inv_gamma=0", "ema.inv_gamma"),
        ("ema.power=-1", "ema.power"),
        ("resume=5", "resume=5"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read_or_written(train, tmp_path, override, says):
    with pytest.raises(ConfigError) as error:
        train(override, "task.dataset.zarr_path=nowhere.zarr")
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_best_policy_is_complete_at_every_moment(train):
    scores = iter([0.5, 0.7, 0.6, 0.9])
    workspace = train("training.checkpoint_every=2", "training.topk=1", rollout=lambda policy, step: next(scores))
    workspace.run()
    assert load_policy(workspace.output_dir / "best").step == 8
    assert sorted(path.name for path in (workspace.output_dir / "checkpoints").iterdir()) == ["step-000008"]
