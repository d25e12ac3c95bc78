"""Dropout drops what it should, as PyTorch's does, and repeats with its seed."""

import pytest
import torch

from diffusion_policy.model.diffusion.dropout import Dropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.75])
def test_drops_the_share_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    y = dropout(torch.ones(501, 1001, dtype=dtype), p, True)
    assert y.dtype == dtype and (y == 0).float().mean().item() == pytest.approx(p, abs=0.003)
    kept = y[y != 0].float()
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4 if dtype is torch.float32 else 1e-2)


def test_entries_and_calls_are_independent():
    torch.manual_seed(0)
    masks = torch.stack([dropout(torch.ones(64, 4096), 0.5, True) == 0 for _ in range(2)]).float()
    assert abs(torch.corrcoef(masks.reshape(2, -1))[0, 1]) < 0.01  # two calls
    for distance in (1, 2, 3, 4, 8):  # within and across random words
        a, b = masks[0, :, :-distance], masks[0, :, distance:]
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.01


def test_the_gradient_passes_where_the_value_does():
    torch.manual_seed(0)
    x = torch.randn(100, 7, requires_grad=True)
    y = dropout(x, 0.4, True)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 1 / 0.6), rtol=1e-4, atol=0)


def test_repeats_with_the_global_seed():
    def draw():
        torch.manual_seed(3)
        return dropout(torch.ones(999), 0.3, True)

    torch.testing.assert_close(draw(), draw(), rtol=0, atol=0)


def test_does_nothing_in_evaluation_or_at_zero_and_everything_at_one():
    x = torch.randn(8)
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0)(x) is x
    assert not Dropout(1.0)(x).any()
    with pytest.raises(ValueError, match="probability"):
        Dropout(1.5)
