"""Normaliser and weight averaging."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion


def test_limits_map_to_one_and_back_and_constants_are_only_shifted():
    data = torch.stack([torch.linspace(-3, 9, 50), torch.full((50,), 7.0)], dim=-1)
    normalizer = FieldNormalizer.fit(data)
    out = normalizer.normalize(data)
    assert out[:, 0].min() == -1 and out[:, 0].max() == pytest.approx(1)
    assert (out[:, 1] == 0).all()
    assert torch.allclose(normalizer.unnormalize(out), data, atol=1e-5)


def test_gaussian_mode_and_unknown_mode():
    data = torch.randn(1000, 3) * 5 + 2
    out = FieldNormalizer.fit(data, "gaussian").normalize(data)
    assert out.mean().abs() < 1e-5 and (out.std(0) - 1).abs().max() < 1e-5
    with pytest.raises(ValueError, match="limits"):
        FieldNormalizer.fit(data, "log")


def test_one_scale_for_all_or_none():
    data = torch.tensor([[-4.0, 0.0, 1.0], [2.0, 0.0, 3.0]])
    one_scale, unchanged = FieldNormalizer.fit(data, "max_abs"), FieldNormalizer.fit(data, "identity")
    assert torch.equal(one_scale.normalize(data), data / 4) and torch.equal(unchanged.normalize(data), data)
    for normalizer in (one_scale, unchanged):
        assert normalizer.input_stats["min"].tolist() == [-4, 0, 1] and normalizer.input_stats["max"].tolist() == [
            2,
            0,
            3,
        ]
    zeros = torch.zeros(5, 2)
    assert torch.equal(FieldNormalizer.fit(zeros, "max_abs").normalize(zeros), zeros)


def test_parts_of_a_field_are_normalised_each_in_its_own_way():
    data = torch.rand(9, 5) * 7 - 2
    parts = [FieldNormalizer.fit(data[:, :3]), FieldNormalizer.identity(2)]
    whole = FieldNormalizer.concatenated(parts)
    out = whole.normalize(data)
    assert torch.equal(out, torch.cat([parts[0].normalize(data[:, :3]), data[:, 3:]], dim=-1))
    assert torch.allclose(whole.unnormalize(out), data, atol=1e-5)
    assert whole.input_stats["max"].tolist() == [*data[:, :3].amax(0).tolist(), 1.0, 1.0]


def test_state_dict_layout_is_the_originals_and_loads_into_an_empty_normalizer():
    fitted = LinearNormalizer.fit({"obs": torch.rand(9, 4), "action": torch.rand(9, 2)})
    state = fitted.state_dict()
    assert {"params_dict.obs.scale", "params_dict.action.input_stats.max"} <= set(state)
    loaded = LinearNormalizer()
    with pytest.raises(KeyError, match="set_normalizer"):
        loaded["obs"]
    loaded.load_state_dict(state)
    x = torch.rand(3, 4)
    assert torch.equal(loaded["obs"].normalize(x), fitted["obs"].normalize(x))


def test_ema_decay_warms_up_and_frozen_parameters_are_copied():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    ema = EMAModel(copy.deepcopy(model), power=0.75)
    assert ema.decay(0) == ema.decay(1) == 0.0
    assert ema.decay(10_000) == pytest.approx(0.999, abs=2e-4) and ema.decay(10**9) == 0.9999
    start = model.weight.detach().clone()
    for _ in range(4):
        with torch.no_grad():
            model.weight.add_(1.0)
            model.bias.fill_(3.0)
        ema.step(model)
    moved = (ema.averaged.weight - start).mean().item()
    assert 2.0 < moved < 4.0
    assert (ema.averaged.bias == 3).all()


def test_only_matrices_decay():
    model = TransformerForDiffusion(2, 2, 4, 2, 3, n_layer=1, n_head=2, n_emb=32)
    decayed, rest = model.optimizer_groups(0.1)
    assert all(p.ndim == 2 for p in decayed["params"]) and decayed["weight_decay"] == 0.1 and rest["weight_decay"] == 0
    assert sum(p.numel() for g in (decayed, rest) for p in g["params"]) == sum(p.numel() for p in model.parameters())
    assert any(p is model.pos_emb for p in rest["params"])
