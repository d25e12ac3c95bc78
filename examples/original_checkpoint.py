"""Load a checkpoint of the original Diffusion Policy project and accelerate it.

    python examples/original_checkpoint.py path/to/latest.ckpt

Nothing in the file is executed. The schedule is uniform: it needs no profiling. `own_denoiser.py` shows how to profile.
"""

import sys

import torch

from bac import accelerate
from bac.denoiser import model_blocks
from bac.uniform import uniform
from diffusion_policy.common.checkpoint import load_policy


def main(path: str) -> None:
    loaded = load_policy(path)  # EMA weights; weights="raw" for the others
    policy, steps = loaded.policy, loaded.policy.sampler.num_inference_steps
    print(loaded)

    schedule = uniform(model_blocks(policy.model), steps, budget=max(1, steps // 10))
    obs = policy.random_observation(1, torch.Generator().manual_seed(0))  # shapes and ranges of the policy's inputs
    with accelerate(policy, schedule, runtime="planned") as fast:
        action = fast.predict_action(obs, torch.Generator().manual_seed(0))["action"]
    print(f"actions {tuple(action.shape)}")
    print(fast.report())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
