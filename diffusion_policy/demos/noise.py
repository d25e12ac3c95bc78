"""Noise that disturbs an expert while it demonstrates (DART, Laskey et al. 2017): it is executed and not recorded."""

from __future__ import annotations

import numpy as np

MEMORY = 0.8  # share of the noise of one step that is left in the next


def wandering(fresh: np.ndarray) -> np.ndarray:
    """Independent draws [T, D] -> noise [T, D] of the same standard deviation that changes slowly over the T steps."""
    noise = fresh.copy()
    for step in range(1, len(noise)):
        noise[step] = MEMORY * noise[step - 1] + np.sqrt(1.0 - MEMORY**2) * fresh[step]
    return noise
