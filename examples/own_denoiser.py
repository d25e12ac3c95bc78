"""Profile and accelerate a Transformer of your own sizes: python examples/own_denoiser.py

The weights are random here; train yours, or load them with `policy.load_state_dict`.
"""

import torch
from diffusers import DDPMScheduler

from bac import accelerate, bua
from bac.profiling import profile_features
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy

OBS_DIM, ACTION_DIM, OBS_STEPS, HORIZON = 6, 3, 2, 8


def main() -> None:
    torch.manual_seed(0)
    model = TransformerForDiffusion(
        ACTION_DIM, ACTION_DIM, HORIZON, OBS_STEPS, cond_dim=OBS_DIM, n_layer=3, n_head=4, n_emb=32, causal_attn=True
    )
    ddpm = DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    policy = DiffusionTransformerLowdimPolicy(model, ddpm, HORIZON, OBS_DIM, ACTION_DIM, 4, OBS_STEPS, obs_as_cond=True)
    demonstrations = {"obs": torch.randn(100, OBS_DIM), "action": torch.randn(100, ACTION_DIM)}
    policy.set_normalizer(LinearNormalizer.fit(demonstrations))
    policy.eval()

    recorded = {"obs": torch.randn(4, OBS_STEPS, OBS_DIM)}  # observations of your robot
    matrices = profile_features(policy.sampler, policy.sampler_inputs(recorded), noise_seeds=(0, 1))
    schedule = bua.bac(matrices["cosine"], matrices["l1"], budget=5, top_k=3)
    print(schedule)
    with accelerate(policy, schedule, runtime="planned") as fast:
        print(fast.predict_action(recorded)["action"].shape)
    print(fast.report())


if __name__ == "__main__":
    main()
