"""Trainings that start from another policy: all of it, or what fits."""

from __future__ import annotations

import pytest
import torch

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError


def test_a_policy_from_the_condition_objective_is_the_start_of_the_denoising(train_condition_task):
    first = train_condition_task(
        "condition",
        "objective=condition",
        "task.policy.model.n_layer=2",
        "training.batch_size=64",
        "training.validate_every=0",
        "training.max_steps=20",
        "training.checkpoint_every=20",
    )
    layers = {name: value.clone() for name, value in first.policy.state_dict().items() if ".layers." in name}
    first.run()
    start = first.output_dir / "checkpoints" / "step-000020"
    second = train_condition_task(
        "denoising",
        "task.policy.model.n_layer=2",
        f"init_checkpoint={start}",
        "training.max_steps=2",
        "training.checkpoint_every=0",
    )
    for name, value in layers.items():
        torch.testing.assert_close(
            second.policy.state_dict()[name], value, atol=1e-4, rtol=1e-3
        )  # untouched, in half precision
    rows = torch.arange(8)
    obs = {"obs": first.val_set[rows]["obs"][:, :3]}
    before = second.policy.eval().encode_observation(obs)
    torch.testing.assert_close(before, load_policy(start).policy.encode_observation(obs))
    second.run()
    assert not torch.equal(second.policy.model.head.weight, load_policy(start).policy.model.head.weight)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_policy_with_other_layers_is_refused(train_condition_task, layers):
    first = train_condition_task(
        "first",
        "task.policy.model.n_layer=2",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
    )
    first.run()
    with pytest.raises(ConfigError, match="is another model"):
        train_condition_task(
            "other",
            f"task.policy.model.n_layer={layers}",
            f"init_checkpoint={first.output_dir / 'checkpoints' / 'step-000001'}",
        )


def test_what_fits_of_another_tasks_policy_is_taken_over(train_condition_task):
    other = train_condition_task(
        "other",
        "task.policy.model.n_layer=2",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
        "task.horizon=8",
        "task.n_action_steps=4",
        "task.dataset.obs_eef_target=false",
    )
    other.run()
    path = other.output_dir / "checkpoints" / "step-000001"
    workspace = train_condition_task("here", "task.policy.model.n_layer=2", f"transfer_from={path}")
    own, found, fresh = (
        policy.state_dict()
        for policy in (
            workspace.policy,
            load_policy(path).policy,
            train_condition_task("fresh", "task.policy.model.n_layer=2").policy,
        )
    )
    assert own["model.pos_emb"].shape != found["model.pos_emb"].shape
    for name, value in own.items():
        # Sizes that differ, masks and the normalizer are this task's.
        mine = name == "model.pos_emb" or "mask" in name or name.startswith("normalizer.")
        assert torch.equal(value, (fresh if mine else found)[name]), name
    assert not torch.equal(own["normalizer.params_dict.obs.scale"], found["normalizer.params_dict.obs.scale"])


def test_a_policy_of_another_width_has_nothing_to_take_over(train_condition_task):
    other = train_condition_task(
        "other",
        "task.policy.model.n_emb=16",
        "task.policy.model.n_layer=1",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
    )
    other.run()
    path = other.output_dir / "checkpoints" / "step-000001"
    with pytest.raises(ConfigError, match="no layer of it fits"):
        train_condition_task("here", f"transfer_from={path}")
    with pytest.raises(ConfigError, match="set one of them"):
        train_condition_task("here", f"transfer_from={path}", f"init_checkpoint={path}")
