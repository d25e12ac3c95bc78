"""What is set on a policy takes effect, or is refused."""

from __future__ import annotations

import threading

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from bac import accelerate
from bac.samplers.grid_loop import GridLoop, GridSettings
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy

OBS = {"obs": torch.linspace(0, 1, 30).view(3, 2, 5)}


def make_policy(chunk_only=False, steps=None, scheduler=None, **kwargs):
    torch.manual_seed(0)
    tokens = 3 if chunk_only else 8
    model = TransformerForDiffusion(
        2, 2, tokens, n_obs_steps=2, cond_dim=5, n_layer=1, n_head=2, n_emb=32, p_drop_emb=0.0, p_drop_attn=0.0
    )
    scheduler = (
        DDPMScheduler(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2") if scheduler is None else scheduler
    )
    policy = DiffusionTransformerLowdimPolicy(
        model, scheduler, 8, 5, 2, 3, 2, steps, obs_as_cond=True, pred_action_steps_only=chunk_only, **kwargs
    )
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.rand(50, 5), "action": torch.rand(50, 2)}))
    return policy.eval()


def act(policy, seed=0):
    return policy.predict_action(OBS, torch.Generator().manual_seed(seed))["action_pred"]


def denoiser_calls(policy):
    calls = []
    handle = policy.model.register_forward_hook(lambda *_: calls.append(1))
    act(policy)
    handle.remove()
    return len(calls)


def test_number_of_denoising_steps():
    policy = make_policy()
    assert policy.num_inference_steps == 20 == denoiser_calls(policy)
    policy.num_inference_steps = 8
    assert policy.num_inference_steps == 8 == denoiser_calls(policy)
    assert torch.equal(act(policy), act(make_policy(steps=8)))
    for wrong in (0, 21, 2.5, "8", None, True):
        with pytest.raises(ValueError, match="is not possible: use 1 to 20"):
            policy.num_inference_steps = wrong
    assert policy.num_inference_steps == 8
    with pytest.raises(ValueError, match="num_inference_steps=0 is not possible"):
        make_policy(steps=0)


def test_noise_scheduler():
    policy = make_policy()
    policy.noise_scheduler = DDIMScheduler.from_config(policy.noise_scheduler.config)
    policy.num_inference_steps = 5
    assert denoiser_calls(policy) == 5 and isinstance(policy.noise_scheduler, DDIMScheduler)
    assert torch.equal(
        act(policy), act(make_policy(steps=5, scheduler=DDIMScheduler(20, beta_schedule="squaredcos_cap_v2")))
    )
    with pytest.raises(AttributeError, match="has to be a scheduler of diffusers"):
        policy.noise_scheduler = "ddim"
    with pytest.warns(UserWarning, match="another noise schedule or prediction_type"):
        policy.noise_scheduler = DDIMScheduler()


def test_a_dpm_solver_clips_as_the_policy_was_trained():
    policy = make_policy()
    policy.noise_scheduler = DPMSolverMultistepScheduler.from_config(policy.noise_scheduler.config)
    policy.num_inference_steps = 8
    normalised = policy.normalizer["action"].normalize(act(policy))
    assert normalised.abs().max() <= 1 + 1e-5


def test_step_options():
    policy = make_policy(scheduler=DDIMScheduler(20, beta_schedule="squaredcos_cap_v2"))
    before = act(policy)
    policy.kwargs = {"eta": 1.0}
    assert not torch.equal(act(policy), before) and dict(policy.kwargs) == {"eta": 1.0}
    with pytest.raises(TypeError):
        policy.kwargs["eta"] = 0.5


@pytest.mark.parametrize("chunk_only, most", [(False, 7), (True, 3)])
def test_number_of_executed_actions(chunk_only, most):
    policy = make_policy(chunk_only)
    whole = act(policy)
    start = 0 if chunk_only else 1
    for count in (1, 2, most):
        policy.n_action_steps = count
        result = policy.predict_action(OBS, torch.Generator().manual_seed(0))
        assert torch.equal(result["action_pred"], whole) and torch.equal(
            result["action"], whole[:, start : start + count]
        )
    for wrong in (0, most + 1, 1.5):
        with pytest.raises(ValueError, match=f"use 1 to {most}"):
            policy.n_action_steps = wrong


def test_the_model():
    policy, other = make_policy(), make_policy()
    with torch.no_grad():
        other.model.head.bias.fill_(0.5)
    policy.model = other.model
    assert torch.equal(act(policy), act(other))


@pytest.mark.parametrize(
    "name, value",
    [
        ("horizon", 4),
        ("n_obs_steps", 1),
        ("obs_dim", 4),
        ("action_dim", 3),
        ("obs_as_cond", False),
        ("pred_action_steps_only", True),
        ("obs_shapes", {}),
        ("cameras", ("image",)),
    ],
)
def test_what_the_weights_are_made_for_cannot_be_set(name, value):
    policy = make_policy()
    with pytest.raises(AttributeError, match=f"{name}=.*cannot be set: the policy was made and trained with"):
        setattr(policy, name, value)


@pytest.mark.parametrize("value", [None, "ddim16", 8])
def test_a_sampler_has_to_be_a_denoising_loop(value):
    policy = make_policy()
    before = act(policy)
    with pytest.raises(AttributeError, match="has to be a denoising loop"):
        policy.sampler = value
    assert torch.equal(act(policy), before)


@pytest.mark.parametrize(
    "name, meant",
    [
        ("num_inference_step", "num_inference_steps"),
        ("num_inferences_steps", "num_inference_steps"),
        ("n_actions_steps", "n_action_steps"),
        ("noise_schedule", "noise_scheduler"),
        ("noise_shceduler", "noise_scheduler"),
    ],
)
def test_almost_a_name_is_refused(name, meant):
    with pytest.raises(AttributeError, match=f"did you mean '{meant}'"):
        setattr(make_policy(), name, 8)
    policy = make_policy()
    policy.comment = "anything else is the user's own"
    assert policy.comment


def on_a_grid():
    policy = make_policy()
    policy.sampler = GridLoop(policy.sampler, GridSettings("ancestral", (17, 9, 2)))
    return policy


def test_a_sampler_on_a_grid_stays_with_another_model_or_scheduler():
    policy, other = on_a_grid(), on_a_grid()
    with torch.no_grad():
        other.model.head.bias.fill_(0.5)
    policy.model = other.model
    assert policy.num_inference_steps == 3 == denoiser_calls(policy) and torch.equal(act(policy), act(other))
    policy.noise_scheduler = DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", clip_sample_range=0.1)
    assert policy.normalizer["action"].normalize(act(policy)).abs().max() <= 0.1 + 1e-5


@pytest.mark.parametrize("name, value", [("num_inference_steps", 5), ("kwargs", {"eta": 1.0})])
def test_a_sampler_on_a_grid_has_steps_and_options_of_its_own(name, value):
    policy = on_a_grid()
    before = act(policy)
    with pytest.raises(AttributeError, match=f"{name}=.* cannot be set: .* GridLoop, .* set policy.sampler"):
        setattr(policy, name, value)
    assert torch.equal(act(policy), before)
    with accelerate(policy), pytest.raises(AttributeError, match="leave the accelerate"):
        policy.num_inference_steps = 5
    policy.sampler = policy.sampler.own
    assert torch.equal(act(policy), act(make_policy()))


def test_what_the_originals_loops_call():
    policy = make_policy()
    before = act(policy)
    policy.reset()
    assert torch.equal(act(policy), before)
    assert policy.dtype is torch.float32 and policy.double().dtype is torch.float64
    with pytest.raises(AttributeError):
        policy.dtype = torch.float16


def test_velocity_is_learned_and_sampled():
    policy = make_policy(
        scheduler=DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    ).train()
    batch = {"obs": torch.rand(16, 8, 5), "action": torch.rand(16, 8, 2)}
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = policy.compute_loss(batch, torch.Generator().manual_seed(0), snr_gamma=5.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    plain = act(policy.eval())
    with accelerate(policy, runtime="planned") as fast:
        assert torch.allclose(act(fast), plain, atol=1e-5)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("runtime", [None, "reference"])
def test_calls_of_several_threads_do_not_share_a_scheduler(kind, runtime):
    """A multistep solver keeps its last estimates: shared, threads would continue each other's chains."""
    policy = make_policy(scheduler=kind(num_train_timesteps=20, beta_schedule="squaredcos_cap_v2"), steps=10)
    expected = [act(policy, seed) for seed in range(12)]
    got = {}

    def work(offset):
        for seed in range(offset, 12, 3):
            got[seed] = act(policy, seed)

    def run():
        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if runtime is None:
            run()
        else:
            with accelerate(policy, runtime=runtime):
                run()
    finally:
        torch.set_num_threads(before)
    assert all(torch.allclose(got[seed], expected[seed], atol=1e-6) for seed in range(12))


@pytest.mark.parametrize("runtime", [None, "reference", "planned"])
@pytest.mark.parametrize(
    "obs, message",
    [
        (torch.zeros(0, 2, 5), "the batch of observations is empty"),
        (torch.full((1, 2, 5), 1e30), "once normalised.*check its units"),
    ],
)
def test_one_rule_for_every_runtime(runtime, obs, message):
    policy = make_policy()
    with pytest.raises(ValueError, match=message):
        if runtime is None:
            policy.predict_action({"obs": obs})
        else:
            with accelerate(policy, runtime=runtime) as fast:
                fast.predict_action({"obs": obs})


def test_actions_that_are_not_finite_are_an_error():
    policy = make_policy(scheduler=DPMSolverMultistepScheduler(20, beta_schedule="squaredcos_cap_v2"), steps=20)
    with pytest.raises(ValueError, match=r"actions of batch rows \[0, 1, 2\] are not finite"):
        act(policy)  # two of its timesteps coincide
