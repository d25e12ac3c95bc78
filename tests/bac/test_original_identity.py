"""The certificate of a checkpoint fits the original project's policy of the same weights."""

import torch

from bac import Tuned, accelerate
from diffusion_policy.common.checkpoint import load_policy
from tests.bac.tiny_policies import TOLERANCE, error
from tests.conftest import ROOT
from tests.original_project.diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_project.diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from tests.original_project.diffusion_policy.policy.diffusion_transformer_lowdim_policy import (
    DiffusionTransformerLowdimPolicy,
)


def test_what_was_made_for_the_bundled_policy_fits_the_originals_object():
    ours = load_policy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100").policy
    model = ours.model
    theirs = DiffusionTransformerLowdimPolicy(
        TransformerForDiffusion(
            model.input_dim, model.output_dim, model.horizon, model.n_obs_steps, model.cond_dim, model.n_layer,
            model.n_head, model.n_emb, model.n_cond_layers,
        ),
        ours.noise_scheduler, ours.horizon, ours.obs_dim, ours.action_dim, ours.n_action_steps, ours.n_obs_steps,
        obs_as_cond=True,
    )  # fmt: skip
    limits = {name: (torch.zeros(size), torch.ones(size)) for name, size in ours.field_sizes.items()}
    theirs.set_normalizer(LinearNormalizer(limits))
    assert not theirs.load_state_dict(ours.state_dict(), strict=False).missing_keys
    theirs.eval()
    observation = ours.random_observation(1, torch.Generator().manual_seed(0))
    certificate, actions = Tuned.load(ROOT / "assets" / "pusht_lowdim" / "tuned.json"), []
    for policy in (ours, theirs):
        with accelerate(policy, certificate, runtime="planned") as fast:  # of these weights and this normaliser
            actions.append(fast.predict_action(observation, torch.Generator().manual_seed(1))["action"])
    assert error(actions[1], actions[0]) < TOLERANCE
