"""Observations between environments and policies: one array, or several by name (images and vectors)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np

# float32. One array for a low-dimensional task; {"agentview_image": ..., "robot0_eef_pos": ...} for one with images.
Observation = Union[np.ndarray, "dict[str, np.ndarray]"]


def apply(function: Callable[..., Any], *observations: Observation) -> Any:
    """`function` of the array, or of every array by name; further observations have the same names."""
    first = observations[0]
    if not isinstance(first, dict):
        return function(*observations)
    return {name: function(*(observation[name] for observation in observations)) for name in first}


def stack(observations: Sequence[Observation]) -> Observation:
    """[...] each -> [N, ...]."""
    return apply(lambda *arrays: np.stack(arrays), *observations)


def is_finite(observation: Observation) -> bool:
    arrays = observation.values() if isinstance(observation, dict) else [observation]
    return all(bool(np.isfinite(array).all()) for array in arrays)
