"""A training step, and the same recorded as a CUDA graph."""

from __future__ import annotations

import copy

import pytest
import torch

from diffusion_policy.workspace.update import GraphedUpdate, Update
from tests.bac.tiny_policies import tiny_policy
from tests.policy.image_policies import make_small

POLICIES = {"vectors": tiny_policy, "images": make_small}


def batches(policy, count: int, size: int = 4) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def draw(shape):
        return torch.rand(size, policy.horizon, *shape, generator=generator)

    shapes = {**policy.obs_shapes, "action": (policy.action_dim,)}
    return [
        {name: (255 * draw(shape)).byte() if name in policy.cameras else draw(shape) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def trained(policy, kind, data, device, first_seed=0):
    """The policy after a step with each batch, and the losses."""
    policy = copy.deepcopy(policy).to(device).train()
    rate = 1e-3 if kind is Update else torch.tensor(1e-3, device=device)
    optimizer = torch.optim.AdamW(policy.optimizer_groups(1e-3), lr=rate, fused=True, capturable=kind is GraphedUpdate)

    def loss(batch, generator):
        return policy.compute_loss(batch, generator, snr_gamma=20.0)

    update = kind(loss, list(policy.parameters()), optimizer, 1.0, torch.device(device))
    losses = [update(batch, first_seed + step, 1e-3 / (1 + step)).item() for step, batch in enumerate(data)]
    return policy, losses


@pytest.mark.parametrize("name", POLICIES)
def test_a_step_repeats_with_its_seed(name):
    policy = POLICIES[name]()
    data = batches(policy, 3)
    torch.manual_seed(1)
    first, losses = trained(policy, Update, data, "cpu")
    torch.manual_seed(2)
    again, same = trained(policy, Update, data, "cpu")
    assert losses == same and losses != trained(policy, Update, data, "cpu", first_seed=9)[1]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), policy.parameters()))


@pytest.mark.gpu
@pytest.mark.parametrize("name", POLICIES)
def test_a_recorded_step_is_the_step(name):
    """Before and after recording, with another batch, seed and learning rate each time."""
    policy = POLICIES[name]()
    data = batches(policy, GraphedUpdate.WARM_UP + 6)
    plain, expected = trained(policy, Update, data, "cuda")
    recorded, losses = trained(policy, GraphedUpdate, data, "cuda")
    assert len(set(losses)) == len(losses)
    assert losses == pytest.approx(expected, rel=1e-3)
    for (parameter, a), b in zip(plain.named_parameters(), recorded.parameters()):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2, msg=parameter)


@pytest.mark.gpu
def test_a_recorded_step_refuses_batches_of_another_size():
    policy = tiny_policy()
    with pytest.raises(ValueError, match="takes one size only"):
        trained(policy, GraphedUpdate, [*batches(policy, 1), *batches(policy, 1, size=3)], "cuda")
