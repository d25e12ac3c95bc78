"""Accelerate the bundled Push-T policy: python examples/accelerate_policy.py [runtime]

The schedule is the paper's (BAC, 10 updates per block). `runtime` is reference, planned or compiled.
"""

import sys
from pathlib import Path

import torch

from bac import Schedule, accelerate
from diffusion_policy.common.checkpoint import load_policy

ROOT = Path(__file__).resolve().parents[1]


def main(runtime: str = "planned") -> None:
    loaded = load_policy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100")
    schedule = Schedule.load(ROOT / "assets" / "pusht_lowdim" / "schedules" / "bac_s10.json")
    policy = loaded.policy
    print(loaded)

    # Two observations [2, 20] (9 keypoints of the T and the agent, in pixels), the first and the second time step.
    obs = {"obs": torch.rand(1, policy.n_obs_steps, policy.obs_dim) * 512}
    full = policy.predict_action(obs, torch.Generator().manual_seed(0))["action"]  # [1, 8, 2]
    with accelerate(policy, schedule, runtime=runtime) as fast:
        action = fast.predict_action(obs, torch.Generator().manual_seed(0))["action"]
    print(fast.report())
    print(f"largest difference to the full policy: {(action - full).abs().max():.1f} px")


if __name__ == "__main__":
    main(*sys.argv[1:])
