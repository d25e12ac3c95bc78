"""The condition objective on camera images."""

from __future__ import annotations

import torch

from diffusion_policy.workspace.objectives.condition import ConditionObjective
from tests.policy.image_policies import make_small, seeded


def test_the_condition_objective_trains_all_that_makes_a_token_and_nothing_of_the_denoiser():
    objective = ConditionObjective(make_small()).train()
    batch = {
        **objective.policy.random_observation(8, seeded(0)),
        "action": torch.rand(8, 10, 2, generator=seeded(1)) * 10 - 20,
    }
    losses = [objective.compute_loss(batch, seeded(seed)) for seed in (5, 5, 6)]
    assert losses[0].item() == losses[1].item() != losses[2].item()  # the crops
    losses[0].backward()
    moved = {name for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    parts = (
        "head.",
        "policy.obs_encoder.",
        "policy.model.cond_obs_emb.",
        "policy.model.encoder.",
        "policy.model.cond_pos_emb",
    )
    expected = {name for name, p in objective.named_parameters() if name.startswith(parts) and p.requires_grad}
    assert moved | {"policy.model.encoder.2.bias"} == expected  # the normalisation over the batch takes this one out


def test_the_condition_objective_may_look_at_the_centre_of_images():
    policy = make_small()
    objective = ConditionObjective(policy, random_crops=False).train()
    batch = {**policy.random_observation(8, seeded(0)), "action": torch.rand(8, 10, 2, generator=seeded(1)) * 10 - 20}
    tokens = [
        objective.tokens({name: batch[name][:, :1] for name in policy.obs_shapes}, seeded(seed)) for seed in (5, 6)
    ]
    assert torch.equal(*tokens)
    torch.testing.assert_close(
        objective.eval().tokens({name: batch[name][:, :1] for name in policy.obs_shapes}), tokens[0]
    )
    assert ConditionObjective(make_small()).train().policy.obs_encoder.random_crops


def test_what_a_token_says_stops_to_depend_on_its_batch():
    """At first the batch scales the tokens; after `scale_steps` a loss is that of each observation by itself.

    In training, too.
    """
    objective = ConditionObjective(make_small(), scale_steps=3).train()
    batch = {
        **objective.policy.random_observation(8, seeded(0)),
        "action": torch.rand(8, 10, 2, generator=seeded(1)) * 10 - 20,
    }
    half = {name: value[:4] for name, value in batch.items()}
    rest = {name: value[4:] for name, value in batch.items()}
    objective.random_crops = False
    objective.train()
    for dependent in (True, False):
        losses = [objective.compute_loss(part).item() for part in (batch, half, rest)]
        assert (abs(losses[0] - (losses[1] + losses[2]) / 2) > 1e-4) == dependent
    assert objective.measured.num_batches_tracked == 6
