"""What the fast runtimes would leave out is refused: adapters, quantised layers, hooks, new methods or samplers."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn.utils import parametrizations

from bac import Schedule, ScheduleError, accelerate
from bac.denoiser import model_blocks
from bac.known_modules import UnknownModule
from bac.provenance import Provenance
from tests.bac.tiny_policies import (
    TOLERANCE,
    act,
    error,
    every_runtime,
    hoisting_runtime,
    observation,
    random_schedule,
    tiny_policy,
)


class LowRank(nn.Module):
    """An adapter as peft makes them: it offers the weight and bias of what it wraps."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)
        nn.init.normal_(self.down.weight)
        nn.init.normal_(self.up.weight)

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def adapt(policy):
    for layer in policy.model.decoder.layers:
        layer.linear1 = LowRank(layer.linear1)


def add_hook(policy):
    policy.model.decoder.layers[0].linear2.register_forward_hook(lambda module, inputs, output: output * 1.1)


def replace_method(policy):
    linear = policy.model.decoder.layers[1].linear1
    own = linear.forward
    linear.forward = lambda x: own(x) * 1.1


def subclass(policy):
    class Scaled(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) * 1.1

    policy.model.decoder.layers[0].norm1.__class__ = Scaled


INSIDE = {
    "adapter": adapt,
    "hook": add_hook,
    "replaced method": replace_method,
    "subclass": subclass,
    "parametrization": lambda policy: parametrizations.weight_norm(policy.model.decoder.layers[0].linear1),
    "pre-hook": lambda policy: policy.model.head.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 1.1,)),
    "condition encoder": lambda policy: setattr(policy.model, "cond_obs_emb", LowRank(policy.model.cond_obs_emb)),
}


@hoisting_runtime
@pytest.mark.parametrize("change", INSIDE)
def test_what_a_fast_runtime_would_bypass_is_refused(change, runtime):
    policy = tiny_policy()
    INSIDE[change](policy.eval())
    with pytest.raises(
        UnknownModule, match=f"(?s)the model's .*which runtime={runtime} would bypass.*use runtime=reference"
    ):
        accelerate(policy.eval(), runtime=runtime)


@pytest.mark.parametrize("change", INSIDE)
def test_the_reference_honours_what_is_inside_of_a_layer(change):
    policy = tiny_policy()
    unchanged = act(policy)
    INSIDE[change](policy)
    plain = act(policy.eval())
    if change != "parametrization":  # which keeps the numbers
        assert error(plain, unchanged) > 1e-3
    with accelerate(policy, runtime="reference") as fast:
        assert torch.equal(act(fast), plain)


OUTSIDE = {
    "layer hook": lambda policy: policy.model.decoder.layers[0].register_forward_hook(lambda m, i, o: o * 1.1),
    "model hook": lambda policy: policy.model.register_forward_pre_hook(lambda m, i: None),
    "forward of the stack": lambda policy: setattr(policy.model.decoder, "forward", lambda *inputs: inputs[0]),
    "branch of a layer": lambda policy: setattr(policy.model.decoder.layers[0], "ffn", lambda x: x),
}


@every_runtime
@pytest.mark.parametrize("change", OUTSIDE)
def test_what_every_runtime_would_bypass_is_refused(change, runtime):
    policy = tiny_policy()
    OUTSIDE[change](policy)
    with pytest.raises(UnknownModule, match="bypass"):
        accelerate(policy, runtime=runtime)


@hoisting_runtime
def test_dynamically_quantised_policies(runtime):
    policy = tiny_policy()
    quantised = torch.ao.quantization.quantize_dynamic(policy, {nn.Linear}, dtype=torch.qint8)
    plain = act(quantised)
    with pytest.raises(UnknownModule, match="quantized.*use runtime=reference"):
        accelerate(quantised, runtime=runtime)
    with accelerate(quantised, runtime="reference") as fast:
        assert torch.equal(act(fast), plain)


@hoisting_runtime
@pytest.mark.parametrize(
    "change, message",
    [
        (adapt, "module of the policy was replaced"),
        (add_hook, "got a hook"),
        (lambda policy: policy.model.mask.zero_(), "weights changed"),
    ],
)
def test_changes_inside_the_block_are_noticed(runtime, change, message):
    policy = tiny_policy()
    with accelerate(policy, runtime=runtime) as fast:
        act(fast)
        change(policy.eval())
        with pytest.raises(RuntimeError, match=f"{message}.*call accelerate"):
            act(fast)


# ---- the sampler of an accelerated policy ----------------------------------------------------------------------------


@every_runtime
def test_settings_of_an_accelerated_policy_are_refused(runtime):
    policy = tiny_policy()
    with accelerate(policy, runtime=runtime) as fast:
        before = act(fast)
        for change in (
            {"num_inference_steps": 5},
            {"kwargs": {"eta": 1.0}},
            {"model": nn.Linear(1, 1)},
            {"noise_scheduler": DDIMScheduler.from_config(policy.noise_scheduler.config)},
        ):
            with pytest.raises(AttributeError, match=r"leave the accelerate\(\) block first"):
                setattr(policy, *next(iter(change.items())))
        assert policy.num_inference_steps == 10 and torch.equal(act(fast), before)
        policy.n_action_steps = 2  # which decides what is executed of the same trajectory
        assert fast.predict_action(observation())["action"].shape[1] == 2


@hoisting_runtime
def test_a_scheduler_changed_in_place_is_noticed(runtime):
    policy = tiny_policy()
    for change in (lambda s: s.register_to_config(clip_sample=False), lambda s: s.alphas_cumprod.mul_(0.9)):
        with accelerate(policy, runtime=runtime) as fast:
            act(fast)
            change(policy.noise_scheduler)
            with pytest.raises(RuntimeError, match=r"sampler was changed.*call accelerate\(\) again"):
                act(fast)
    plain = act(policy)
    with accelerate(policy, runtime=runtime) as fast:
        assert error(act(fast), plain) < TOLERANCE


# ---- schedules of another policy -------------------------------------------------------------------------------------


def schedule_of(policy, **provenance):
    made = random_schedule(policy.model, 10, 0.4, 0)
    return Schedule(made.updates, made.blocks, Provenance("custom", **provenance))


@every_runtime
def test_a_schedule_of_other_weights_is_refused(runtime):
    policy = tiny_policy()
    own = schedule_of(policy, checkpoint_hash=policy.weights_hash())
    with accelerate(policy, own, runtime) as fast:
        act(fast)
    with pytest.raises(ScheduleError, match="made for the weights .* not the policy's .*allow_foreign_schedule=True"):
        accelerate(tiny_policy(seed=1), own, runtime)
    with torch.no_grad():
        policy.model.head.bias.add_(1e-3)
    with pytest.raises(ScheduleError, match="made for the weights"):
        accelerate(policy, own, runtime)
    with accelerate(policy, own, runtime, allow_foreign_schedule=True) as fast:
        act(fast)
    assert "made for the weights" in str(fast.report())


@every_runtime
def test_a_schedule_of_another_sampler_is_refused(runtime):
    policy = tiny_policy("ddim")
    own = schedule_of(policy, sampler="ddim10", sampler_steps=10)
    with accelerate(policy, own, runtime) as fast:
        act(fast)
    assert "on ddim10, runtime" in str(fast.report())
    with pytest.raises(ScheduleError, match="made for the sampler ddim10, which is not the policy's ddpm10"):
        accelerate(tiny_policy("ddpm"), own, runtime)


# ---- copies ----------------------------------------------------------------------------------------------------------


@every_runtime
def test_a_copy_of_an_accelerated_policy_is_accelerated_on_its_own(runtime):
    policy = tiny_policy()
    with accelerate(policy, random_schedule(policy.model, 10, 0.4, 0), runtime) as fast:
        expected = act(fast)
        twin = copy.deepcopy(policy)
        assert torch.equal(act(twin), expected) and twin.sampler is not policy.sampler
        with torch.no_grad():
            policy.model.head.weight.mul_(2.0)
        assert torch.equal(act(twin), expected), "its weights are its own"


def test_blocks_are_named_whatever_wraps_their_layers():
    policy = tiny_policy()
    names = model_blocks(policy.model)
    adapt(policy)
    assert model_blocks(policy.model) == names


def test_what_is_shipped_is_found_from_every_working_directory(tmp_path, monkeypatch):
    from diffusion_policy.common.checkpoint import load_policy

    monkeypatch.chdir(tmp_path)
    loaded = load_policy("checkpoint/pusht_lowdim/ddpm100")
    schedule = Schedule.load("assets/pusht_lowdim/schedules/bac_s10.json")
    assert schedule.provenance.checkpoint_hash == loaded.hash
    with accelerate(loaded.policy, schedule, "planned") as fast:
        assert fast.predict_action(loaded.policy.random_observation(1))["action"].shape == (1, 8, 2)
    assert not list(tmp_path.iterdir())
