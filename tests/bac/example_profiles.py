"""A sound profile for tests, and what it consists of."""

import numpy as np

from bac.blocks import decoder_blocks
from bac.profile_matrices import ProfileInfo
from bac.similarity import METRICS

STEPS, BLOCKS = 5, decoder_blocks(1)
SETTINGS = {"n_episodes": 8, "seed_start": 20000, "n_observations": 64, "noise_seeds": [0, 1]}


def info(**changes) -> ProfileInfo:
    values = {
        "checkpoint_hash": "a" * 64,
        "weights": "ema",
        "sampler": "ddim5",
        "steps": STEPS,
        "observations": 64,
        "noise_seeds": (0, 1),
        "source": "recorded observations",
        "settings": SETTINGS,
    }
    return ProfileInfo(**{**values, **changes})


def matrix(metric: str) -> np.ndarray:
    distance = np.abs(np.subtract.outer(np.arange(STEPS), np.arange(STEPS))) / STEPS
    return METRICS[metric].identical - distance if METRICS[metric].maximise else distance


def matrices():
    return {metric: {block: matrix(metric) for block in BLOCKS} for metric in METRICS}


def with_entry(metric, value, symmetric=True):
    result = matrix(metric).copy()
    result[0, 1] = value
    result[1, 0] = value if symmetric else result[1, 0]
    return result
