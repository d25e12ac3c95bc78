"""The low-dimensional policy as a user calls it."""

from __future__ import annotations

import warnings

import pytest
import torch
from diffusers import DDPMScheduler

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.denoising_targets import min_snr_weights
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy


def make_policy(obs_as_cond=True, only_chunk=False, **kwargs):
    torch.manual_seed(0)
    tokens = 3 if only_chunk else 8
    width = 2 if obs_as_cond else 2 + 5
    model = TransformerForDiffusion(
        width,
        width,
        tokens,
        n_obs_steps=2,
        cond_dim=5 if obs_as_cond else 0,
        n_layer=2,
        n_head=2,
        n_emb=32,
        p_drop_emb=0.0,
        p_drop_attn=0.0,
        causal_attn=True,
    )
    scheduler = DDPMScheduler(10, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    policy = DiffusionTransformerLowdimPolicy(
        model, scheduler, 8, 5, 2, 3, 2, obs_as_cond=obs_as_cond, pred_action_steps_only=only_chunk, **kwargs
    )
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.rand(50, 5) * 100, "action": torch.rand(50, 2) * 10 - 20}))
    return policy.eval()


@pytest.mark.parametrize("obs_as_cond, only_chunk, predicted", [(True, False, 8), (True, True, 3), (False, False, 8)])
def test_shapes_and_units(obs_as_cond, only_chunk, predicted):
    policy = make_policy(obs_as_cond, only_chunk)
    result = policy.predict_action({"obs": torch.rand(4, 2, 5) * 100}, torch.Generator().manual_seed(0))
    assert result["action"].shape == (4, 3, 2) and result["action_pred"].shape == (4, predicted, 2)
    assert (-21 < result["action"]).all() and (result["action"] < -9).all()  # the action range of the data, not [-1, 1]
    start = 0 if only_chunk else 1
    assert torch.equal(result["action"], result["action_pred"][:, start : start + 3])
    if not obs_as_cond:
        assert result["obs_pred"].shape == (4, 8, 5)


def test_inpainting_keeps_what_was_observed():
    policy = make_policy(obs_as_cond=False)
    obs = torch.rand(3, 2, 5) * 100
    assert torch.allclose(policy.predict_action({"obs": obs})["obs_pred"][:, :2], obs, atol=1e-3)


def test_a_sample_does_not_depend_on_its_batch_mates_noise():
    policy = make_policy()
    obs = torch.rand(3, 2, 5) * 100

    def seeds(*values):
        return [torch.Generator().manual_seed(value) for value in values]

    batch = policy.predict_action({"obs": obs}, seeds(5, 6, 7))["action"]
    alone = policy.predict_action({"obs": obs[1:2]}, seeds(6))["action"]
    assert torch.allclose(batch[1:2], alone, atol=1e-4)
    assert torch.equal(batch, policy.predict_action({"obs": obs}, tuple(seeds(5, 6, 7)))["action"])
    with pytest.raises(ValueError, match="one per sample"):
        policy.predict_action({"obs": obs}, seeds(1, 2))


@pytest.mark.parametrize(
    "obs, message",
    [
        ({"obs": torch.full((2, 2, 5), float("nan"))}, r"NaN or infinite values in batch rows \[0, 1\]"),
        ({"obs": torch.zeros(2, 1, 5)}, r"expects \[B, 2, 5\]"),
        ({"obs": torch.zeros(2, 2, 6)}, r"expects \[B, 2, 5\]"),
        ({"image": torch.zeros(2, 2, 6)}, "needs the key 'obs'"),
    ],
)
def test_bad_observations_are_clear_errors(obs, message):
    with pytest.raises(ValueError, match=message):
        make_policy().predict_action(obs)


def test_impossible_settings():
    with pytest.raises(ValueError, match="needs obs_as_cond"):
        make_policy(obs_as_cond=False, only_chunk=True)
    with pytest.raises(ValueError, match="exceeds horizon"):
        DiffusionTransformerLowdimPolicy(make_policy().model, DDPMScheduler(10), 4, 5, 2, 4, 2, obs_as_cond=True)


@pytest.mark.parametrize("obs_as_cond, only_chunk", [(True, False), (True, True), (False, False)])
def test_loss_falls_when_trained_on_one_batch(obs_as_cond, only_chunk):
    policy = make_policy(obs_as_cond, only_chunk).train()
    batch = {"obs": torch.rand(16, 8, 5) * 100, "action": torch.rand(16, 8, 2) * 10 - 20}
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = policy.compute_loss(batch, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_weights_of_the_timesteps():
    alphas_cumprod = make_policy().noise_scheduler.alphas_cumprod
    snr = alphas_cumprod / (1 - alphas_cumprod)
    for gamma in (0.5, 5.0):
        noise, clean = (min_snr_weights(alphas_cumprod, gamma, kind) for kind in ("epsilon", "sample"))
        assert noise.mean().item() == pytest.approx(1) == clean.mean().item()
        assert (noise.diff() >= -1e-6).all() and noise[0] < noise[-1]  # the cleanest trajectories count least
        # A loss on the noise is SNR times the one on the clean trajectory: both kinds weigh the timesteps alike.
        ratio = noise * snr / clean
        assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)


def test_the_weighed_loss_is_the_plain_one_where_only_one_timestep_counts():
    policy = make_policy()
    policy.noise_scheduler = DDPMScheduler(1, clip_sample=True)
    batch = {"obs": torch.rand(16, 8, 5) * 100, "action": torch.rand(16, 8, 2) * 10 - 20}
    plain, weighed = (policy.compute_loss(batch, torch.Generator().manual_seed(0), gamma) for gamma in (None, 1.0))
    assert plain.item() == pytest.approx(weighed.item())


def test_the_loss_with_drawn_timesteps_is_on_average_the_weighed_one():
    class NoisyItself(torch.nn.Module):
        """Predicts noise as if there were nothing else: worse the cleaner the trajectory."""

        def forward(self, sample, timestep, cond):
            return sample

    policy = make_policy()
    policy.model = NoisyItself()
    batch = {"obs": torch.rand(64, 8, 5) * 100, "action": torch.rand(64, 8, 2) * 10 - 20}
    drawn, alike = (
        policy.compute_loss(batch, torch.Generator().manual_seed(0), gamma, noise_draws=500) for gamma in (1.0, None)
    )
    trajectory = policy.normalizer["action"].normalize(batch["action"]).repeat(50, 1, 1)
    noise = torch.randn(trajectory.shape, generator=torch.Generator().manual_seed(1))
    noisy = [policy.noise_scheduler.add_noise(trajectory, noise, torch.full((len(noise),), t)) for t in range(10)]
    losses = torch.stack([(sample - noise).square().mean() for sample in noisy])
    weights = min_snr_weights(policy.noise_scheduler.alphas_cumprod, 1.0, "epsilon")
    assert drawn.item() == pytest.approx((weights * losses).mean().item(), rel=0.02)
    assert alike.item() == pytest.approx(losses.mean().item(), rel=0.02) and drawn < 0.8 * alike


@pytest.mark.parametrize("obs_as_cond", [True, False])
def test_several_noises_of_one_window_are_as_many_windows(obs_as_cond):
    policy = make_policy(obs_as_cond)
    batch = {"obs": torch.rand(6, 8, 5) * 100, "action": torch.rand(6, 8, 2) * 10 - 20}
    repeated = {name: value.repeat(3, 1, 1) for name, value in batch.items()}
    several = policy.compute_loss(batch, torch.Generator().manual_seed(0), noise_draws=3)
    assert several.item() == pytest.approx(
        policy.compute_loss(repeated, torch.Generator().manual_seed(0)).item(), rel=1e-5
    )


def test_a_normalizer_moves_to_where_the_policy_is():
    policy = make_policy()
    fitted, policy.normalizer = policy.normalizer, LinearNormalizer()
    policy.to("meta")  # any device but the CPU
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading numbers to that device does nothing, and warns
        policy.set_normalizer(fitted)
    assert {parameter.device.type for parameter in policy.normalizer.parameters()} == {"meta"}
