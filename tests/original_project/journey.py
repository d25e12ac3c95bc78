"""In an environment of the original project (here its stand-in): import both, accelerate, a schedule from recordings.

    PYTHONPATH=<library>:tests/original_project python tests/original_project/journey.py

It needs torch, numpy, diffusers and `bac` alone. Prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

import diffusion_policy  # the original's: a namespace package, as there
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy

sys.path.insert(0, str(Path(__file__).parent))

from policies import make, observation

import bac
from bac import accelerate, bua, profile


def main() -> None:
    torch.set_num_threads(1)
    policy = make(TransformerForDiffusion, DiffusionTransformerLowdimPolicy, LinearNormalizer, steps=100)
    recorded = np.random.default_rng(0).uniform(-1, 1, (2, 2, 3)).astype(np.float32)
    found = profile(policy, recorded, noise_seeds=(0,))
    matrices, origin = found.matrices, found.info.provenance()
    schedule = bua.bac(matrices["cosine"], matrices["l1"], budget=10, top_k=2, provenance=origin)
    fast = accelerate(policy, schedule, verify=True)
    times: dict[str, list[float]] = {"full": [], "cached": []}
    for _ in range(3):  # by turns
        times["full"].append(_seconds(policy))
        with fast:
            times["cached"].append(_seconds(policy))
    folder = next(iter(diffusion_policy.__path__))
    print(
        json.dumps(
            {
                "diffusion_policy": str(Path(folder).resolve()),
                "bac": str(Path(bac.__file__).parent.resolve()),
                "torch": torch.__version__,
                "updates": fast.report().block_updates / fast.report().chunks,
                "scheduled": schedule.update_count,
                "difference": fast.verification.difference,
                **{name: statistics.median(values) for name, values in times.items()},
            }
        )
    )


def _seconds(policy: DiffusionTransformerLowdimPolicy) -> float:
    started = time.perf_counter()
    policy.predict_action(observation())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
