"""What is said of the figures, and the numbers that are stored beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from bac.flops import denoiser_cost
from bac_workbench.figures.errors import Drawn
from bac_workbench.figures.files import written
from bac_workbench.figures.measure import Measured
from bac_workbench.figures.numbers import changes, relative_errors
from bac_workbench.provenance import environment
from bac_workbench.settings.cache import Cache
from bac_workbench.setup.experiment import Experiment


def drawn_of(experiment: Experiment, caches: Mapping[str, Cache], measured: Measured) -> dict[str, Drawn]:
    """What is said of each cache whose errors are drawn, by method."""
    cost = denoiser_cost(experiment.policy.model)
    found = {}
    for method, action_error in measured.errors.action_errors.items():
        schedule = measured.schedules[method]
        found[method] = Drawn(
            label=caches[method].label,
            updates=schedule.update_count,
            all_updates=schedule.updates.size,
            flops=cost.flops(schedule),
            action_error=action_error,
        )
    return found


def arrays_of(measured: Measured, drawn: Mapping[str, Drawn]) -> dict[str, np.ndarray]:
    """Everything that is drawn, by names such as `similarity|cosine|decoder.layers.0.sa`; maps as float32."""
    profile, errors = measured.profile, measured.errors
    arrays: dict[str, np.ndarray] = {"blocks": np.array(errors.blocks), "sizes": errors.sizes}
    for metric in measured.distances:
        steps = changes(profile.matrices[metric])
        for block in errors.blocks:
            arrays[f"similarity|{metric}|{block}"] = profile.matrices[metric][block].astype(np.float32)
            arrays[f"similarity_change|{metric}|{block}"] = steps[block].astype(np.float32)
            for number, episode in enumerate(measured.episodes):
                arrays[f"episode_{number}|{metric}|{block}"] = episode[metric][block].astype(np.float32)
    for method in drawn:
        arrays[f"errors|{method}"] = errors.errors[method]
    for method, schedule in measured.schedules.items():
        arrays[f"updates|{method}"] = schedule.updates
    return arrays


def described(
    experiment: Experiment, asked: dict[str, Any], measured: Measured, drawn: Mapping[str, Drawn]
) -> dict[str, Any]:
    """The content of figures.json."""
    states = measured.states
    return {
        "settings": asked,
        "profile": measured.profile.info.to_dict(),
        "episodes": [{"name": name, "states": count} for name, count in zip(states.names, states.counts)],
        "homogeneity": {
            metric: {
                block: {
                    "difference": found.difference,
                    "correlation": None if math.isnan(found.correlation) else found.correlation,
                }
                for block, found in apart.items()
            }
            for metric, apart in measured.distances.items()
        },
        "caches": {
            item.label: {
                "block_updates": item.updates,
                "block_updates_full": item.all_updates,
                "gflop": item.flops / 1e9,
                "relative_error": _mean_error(measured, method),
                "action_error": item.action_error,
            }
            for method, item in drawn.items()
        },
        "files": written(list(measured.distances)),
        "provenance": environment(experiment.device, torch.get_num_threads(), experiment.simulator_packages),
    }


def summary(measured: Measured, drawn: Mapping[str, Drawn]) -> Iterator[str]:
    """The main numbers, a line each."""
    one, other = measured.states.names
    for metric, apart in measured.distances.items():
        mean = float(np.mean([found.difference for found in apart.values()]))
        least = min(apart, key=lambda block: apart[block].correlation)
        yield (
            f"{metric}, {one} and {other}: maps differ by {mean:.3g} on average over blocks; correlation "
            f"{apart[least].correlation:.3f} at least ({least})"
        )
    for method, item in drawn.items():
        yield (
            f"{item.label}: {item.updates} of {item.all_updates} block updates, error of block outputs "
            f"{_mean_error(measured, method):.3f} of their size, executed actions off by {item.action_error:.4f}"
        )


def _mean_error(measured: Measured, method: str) -> float:
    errors = measured.errors
    return float(np.nanmean(relative_errors(errors.errors[method], errors.sizes)))
