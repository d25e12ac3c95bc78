"""accelerate() and profile() on the original project's own policy objects: as there, or an error."""

import copy

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from bac import accelerate, bua, profile
from bac.blocks import decoder_blocks
from bac.errors import NoDenoiser, Unavailable
from bac.original import adopt
from bac.uniform import uniform
from tests.bac.tiny_policies import COMPILED, TOLERANCE, error, every_runtime
from tests.original_project.diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_project.diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from tests.original_project.diffusion_policy.policy.diffusion_transformer_lowdim_policy import (
    DiffusionTransformerLowdimPolicy,
)
from tests.original_project.policies import TRAIN, make, observation

HALF = uniform(decoder_blocks(2), 10, 5)


def original(**changes):
    return make(TransformerForDiffusion, DiffusionTransformerLowdimPolicy, LinearNormalizer, **changes)


def act(policy, seed=0, batch=1):
    """Its chunk with the noise of PyTorch's own generator, the only one the original knows."""
    torch.manual_seed(seed)
    return policy.predict_action(observation(batch))["action"]


KINDS = {
    "tokens": {},
    "condition encoder": {"n_cond_layers": 1},
    "inpainting": {"obs_as_cond": False},
    "chunk only": {"pred_action_steps_only": True},
}


@pytest.mark.parametrize("kind", KINDS)
@every_runtime
def test_the_full_policy_acts_as_its_own_loop_does(runtime, kind):
    policy = original(**KINDS[kind])
    before, attributes, state = act(policy, batch=3), set(vars(policy)), torch.get_rng_state()
    with accelerate(policy, runtime=runtime) as fast:
        assert error(act(fast, batch=3), before) < TOLERANCE
        assert error(act(policy, batch=3), before) < TOLERANCE, "the policy object itself is accelerated"
        assert torch.equal(torch.get_rng_state(), state), "as many numbers are drawn"
    assert set(vars(policy)) == attributes and torch.equal(act(policy, batch=3), before)
    assert fast.report().chunks == 2


@every_runtime
def test_a_schedule_saves_updates_and_changes_little(runtime):
    policy = original()
    full = act(policy)
    with accelerate(policy, HALF, runtime) as fast:
        cached = act(fast)
    assert not torch.equal(cached, full)
    assert fast.report().block_updates == HALF.update_count == fast.report().full_updates / 2


def test_runtimes_agree_under_a_schedule():
    policy = original()
    with accelerate(policy, HALF, "reference") as fast:
        expected = act(fast)
    with accelerate(policy, HALF, "planned") as fast:
        assert error(act(fast), expected) < TOLERANCE


def test_a_schedule_from_recordings():
    policy = original()
    found = profile(policy, np.random.default_rng(0).random((4, 2, 3), dtype=np.float32), noise_seeds=(0,))
    matrices, origin = found.matrices, found.info.provenance()
    made = bua.bac(matrices["cosine"], matrices["l1"], budget=3, top_k=2, provenance=origin)
    with accelerate(policy, made, verify=True, warm_up=1) as fast:
        act(fast)
    assert fast.report().block_updates == made.update_count < fast.report().full_updates
    with torch.no_grad():
        policy.model.head.bias.add_(1)
    with pytest.raises(ValueError, match="made for the weights"):
        accelerate(policy, made)


# ---- what is set on the policy -----------------------------------------------------------------------------------


@every_runtime
def test_settings_before_accelerate_act_as_there(runtime):
    policy = original()
    policy.num_inference_steps = 16
    policy.noise_scheduler = DDIMScheduler.from_config(policy.noise_scheduler.config)
    policy.kwargs = {"eta": 0.5}
    policy.n_action_steps = 2
    expected = act(policy)
    with accelerate(policy, runtime=runtime) as fast:
        policy.reset()
        assert error(act(fast), expected) < TOLERANCE and act(fast).shape == (1, 2, 2)
    assert fast.report().sampler == "ddim16-eta0.5"


def _other_scheduler(policy):
    policy.noise_scheduler = DDIMScheduler.from_config(policy.noise_scheduler.config)


def _other_model(policy):
    policy.model = copy.deepcopy(policy.model)


def _other_weights(policy):
    with torch.no_grad():
        policy.model.head.weight.mul_(2)


def _other_layer(policy):
    policy.model.decoder.layers[0].linear1 = torch.nn.Linear(32, 128)


CHANGES = {
    "steps": (lambda policy: setattr(policy, "num_inference_steps", 5), "sampler was changed"),
    "scheduler": (_other_scheduler, "sampler was changed"),
    "options": (lambda policy: setattr(policy, "kwargs", {"return_dict": True}), "sampler was changed"),
    "model": (_other_model, "model was replaced"),
    "weights": (_other_weights, "weights changed"),
    "layer": (_other_layer, "weights changed|module of the policy was replaced"),
    "longer chunk": (lambda policy: setattr(policy, "n_action_steps", 5), "ends at token 6 and 5 are denoised"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("runtime", ["reference", "planned"])
@pytest.mark.parametrize("through", ["policy", "fast"])
def test_settings_while_accelerated_are_an_error_and_never_ignored(change, runtime, through):
    policy = original()
    alter, message = CHANGES[change]
    with accelerate(policy, runtime=runtime) as fast:
        alter(policy)
        with pytest.raises(RuntimeError, match=message):
            act({"policy": policy, "fast": fast}[through])
    act(policy)  # the policy itself goes on


def test_a_shorter_chunk_acts_as_there():
    policy = original()
    expected = act(policy)[:, :2]
    with accelerate(policy) as fast:
        policy.n_action_steps = 2
        assert error(act(fast), expected) < TOLERANCE


def test_generators_may_be_given_while_accelerated():
    policy = original()
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    with accelerate(policy) as fast:
        both = fast.predict_action(observation(2), seeds)["action"]
        alone = fast.predict_action({"obs": observation(2)["obs"][1:]}, torch.Generator().manual_seed(4))["action"]
    assert error(both[1:], alone) < TOLERANCE


def test_a_copy_has_a_policy_of_its_own():
    policy = original()
    with accelerate(policy) as fast:
        twin = copy.deepcopy(fast)
        expected = act(fast)
    assert torch.equal(act(twin), expected), "the copy is still attached"
    twin.detach()


class Hybrid(DiffusionTransformerLowdimPolicy):
    """Sees images by an encoder of its own."""

    def predict_action(self, obs_dict):
        return super().predict_action({"obs": self.obs_encoder(obs_dict["image"].flatten(2))})


@every_runtime
def test_a_policy_with_an_encoder_of_its_own(runtime):
    policy = make(TransformerForDiffusion, Hybrid, LinearNormalizer)
    policy.obs_encoder = torch.nn.Linear(12, 3)
    images = {"image": torch.rand(1, 2, 3, 2, 2)}
    torch.manual_seed(0)
    expected = policy.predict_action(images)["action"]
    with accelerate(policy, runtime=runtime) as fast:
        torch.manual_seed(0)
        assert error(fast.predict_action(images)["action"], expected) < TOLERANCE
        fast.warm_up(1, images)
        with pytest.raises(Unavailable, match="no observation can be made up for a Hybrid: give one"):
            fast.warm_up()
    assert fast.report().encoder.startswith("PyTorch") and fast.report().chunks == 1


# ---- what is refused -------------------------------------------------------------------------------------------------


class Guided(DiffusionTransformerLowdimPolicy):
    """Denoises in another way."""

    def conditional_sample(self, *arguments, **options):
        return super().conditional_sample(*arguments, **options) * 0.9


def test_another_loop_is_refused():
    policy = make(TransformerForDiffusion, Guided, LinearNormalizer)
    with pytest.raises(Unavailable, match="loop of this Guided is not that of the original.*bac.cache"):
        accelerate(policy)


class Shifted(DiffusionTransformerLowdimPolicy):
    """Executes from another token on."""

    def predict_action(self, obs_dict):
        result = super().predict_action(obs_dict)
        return {**result, "action": result["action_pred"][:, :4]}


def test_another_executed_chunk_is_an_error():
    policy = make(TransformerForDiffusion, Shifted, LinearNormalizer)
    with accelerate(policy), pytest.raises(RuntimeError, match="does not execute tokens 1 to 4"):
        act(policy)


def _hook(policy):
    policy.model.register_forward_hook(lambda *_: None)


def _hook_inside(policy):
    policy.model.decoder.layers[1].register_forward_hook(lambda *_: None)


def _subclass(policy):
    policy.model.decoder.layers[0].linear2 = type("Adapter", (torch.nn.Linear,), {})(128, 32)


@pytest.mark.parametrize("spoil", [_hook, _hook_inside, _subclass])
def test_what_would_be_bypassed_is_refused(spoil):
    policy = original()
    spoil(policy)
    with pytest.raises(ValueError, match="which (block-wise caching|runtime=planned) would bypass"):
        accelerate(policy)


def test_training_mode_a_second_time_and_odd_schedulers_are_refused():
    policy = original()
    with accelerate(policy), pytest.raises(ValueError, match="already accelerated"):
        accelerate(policy)
    with pytest.raises(Unavailable, match="training mode"):
        accelerate(policy.train())
    policy.eval().noise_scheduler = EulerDiscreteScheduler()
    with pytest.raises(Unavailable, match="scales"):
        accelerate(policy)


class ConditionalUnet1D(torch.nn.Module):
    pass


def test_a_unet_is_told_what_helps_it():
    policy = original()
    policy.model = ConditionalUnet1D()
    with pytest.raises(NoDenoiser, match="ConditionalUnet1D has no input_emb.*fewer steps"):
        accelerate(policy)
    with pytest.raises(Unavailable, match="no `sampler` to replace.*it has no model, noise_scheduler"):
        accelerate(ConditionalUnet1D())


@pytest.mark.parametrize("runtime", ["planned", COMPILED])
def test_ddim_beside_its_own_grid_needs_the_reference(runtime):
    policy = original(steps=16)
    policy.noise_scheduler = DDIMScheduler(**TRAIN, timestep_spacing="linspace")
    with pytest.raises(ValueError, match="steps beside its own timesteps"):
        accelerate(policy, runtime=runtime)
    expected = act(policy)
    with accelerate(policy, runtime="reference") as fast:
        assert error(act(fast), expected) < TOLERANCE


def test_adopting_is_for_policies_without_a_sampler():
    policy = original()
    face = adopt(policy)
    assert face.original is policy and adopt(face) is face
