"""A whole training with its steps as one CUDA graph."""

from __future__ import annotations

import json

import pytest


@pytest.mark.gpu
def test_training_on_a_gpu_with_and_without_a_recorded_step(train_condition_task, tmp_path):
    """With a process that loads, whose pinned memory is allocated while the step is recorded.

    The second half is resumed.
    """

    def losses(name, *overrides):
        options = [
            "device=cuda",
            "training.batch_size=16",
            "training.log_every=1",
            "training.num_workers=1",
            "training.save_every=6",
        ]
        for steps in (6, 12):
            train_condition_task(
                name,
                *options,
                f"training.max_steps={steps}",
                "training.lr_schedule=cosine",
                "training.learning_rate=1e-4",
                *overrides,
            ).run()
        return [json.loads(line)["train_loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]

    recorded = losses("recorded")
    assert len(recorded) == 12 and recorded == pytest.approx(losses("plain", "training.cuda_graph=false"), rel=1e-3)
