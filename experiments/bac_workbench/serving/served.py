"""The policy that a server acts with: loaded, accelerated, warmed up and verified."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bac.acceleration import Acceleration, accelerate
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.serving.wire import BadRequest, as_array
from bac_workbench.settings.serving import Serve
from bac_workbench.setup.experiment import Experiment, load_experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.errors import InputError

SEED = "seed"  # in a request: of the noise of its chunk
LARGEST_SEED = 2**63 - 1
WARM_UP = 3  # chunks
_SLACK = 64 << 10  # bytes of a message that are no observation

Say = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """An accelerated policy and what clients are told of it.

    Attributes:
        fast: attached.
        info: what it is, as texts.
        metadata: the first message of every connection.
        notes: what has to be said beside.
    """

    fast: Acceleration
    info: Mapping[str, str]
    metadata: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def interface(self) -> tuple[Any, Any]:
        """What clients were told to send, and what they get."""
        return self.metadata["observations"], self.metadata["actions"]

    @property
    def request_bytes(self) -> int:
        """The most that a message with this policy's observations takes: in double precision, and 64 kB."""
        numbers = sum(math.prod(item["shape"]) for item in self.metadata["observations"].values())
        return 8 * numbers + _SLACK

    def act(self, request: Mapping[str, Any], noise: torch.Generator) -> np.ndarray:
        """An observation [To, *shape] by name -> actions [Ta, Da], in the environment's units.

        Args:
            request: may say the `seed` of the noise; else that is drawn from `noise`.

        Raises:
            BadRequest: it does not fit the policy.
        """
        observations, given = self.metadata["observations"], dict(request)
        seed = None if SEED in observations else given.pop(SEED, None)
        if seed is not None:
            if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
                raise BadRequest(f"seed has to be a whole number from 0 to {LARGEST_SEED}")
            noise = torch.Generator().manual_seed(seed)
        if differing := sorted(set(given) ^ set(observations)):
            raise BadRequest(
                f"the request {'has' if differing[0] in given else 'lacks'} {differing[0][:80]!r}: "
                f"this policy takes {', '.join(observations)}"
            )
        tensors = {name: torch.from_numpy(as_array(name, value))[None] for name, value in given.items()}
        try:
            return self.fast.predict_action(tensors, noise)["action"][0].cpu().numpy()
        except InputError as error:
            raise BadRequest(str(error)) from None


def load_served(settings: Serve, say: Say = print) -> Served:
    """Loads the policy that the settings name, attaches its cache and runtime, and compares a chunk with the reference.

    Raises:
        UserError: something is missing or does not fit; the message says what to do.
    """
    experiment = load_experiment(settings, needs_simulator=False)
    schedule = schedule_for(experiment, say)
    policy = experiment.policy
    policy.sampler = experiment.sampler
    fast = accelerate(
        policy,
        schedule,
        settings.runtime,
        settings.precision,
        horizon=settings.chosen_horizon,
        verify=settings.runtime != "reference",
        warm_up=WARM_UP,
    ).attach()
    info = info_of(experiment)
    return Served(fast, info, metadata_of(policy, info), tuple(experiment.notes))


def info_of(experiment: Experiment) -> dict[str, str]:
    """What is served, as texts."""
    settings = experiment.settings
    return {
        "task": settings.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "cache": experiment.cache.label,
        "sampler": experiment.sampler_name,
        "runtime": settings.runtime,
        "precision": settings.precision,
        "device": str(experiment.device),
    }


def metadata_of(policy: Any, info: Mapping[str, str]) -> dict[str, Any]:
    """What a client has to send and gets, and `info`."""
    observations = {
        name: {
            "shape": [policy.n_obs_steps, *shape],
            "values": "images, uint8 or in [0, 1]" if name in policy.cameras else "numbers in the environment's units",
        }
        for name, shape in policy.obs_shapes.items()
    }
    actions = {"shape": [policy.n_action_steps, policy.action_dim]}
    return {"server": "bac", **info, "observations": observations, "actions": actions}


def check_replacement(old: Served, new: Served) -> None:
    """Refuses a policy that the clients of another one cannot use.

    Raises:
        ConfigError: it takes or gives something else.
    """
    for name, had, has in zip(("observations", "actions"), old.interface, new.interface):
        if had != has:
            raise ConfigError(
                f"the checkpoint has other {name} ({has}) than the one that is served ({had}), which clients were told "
                "about: start a server for it"
            )
