"""What a stored profile is of, and whether that is what is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bac.profile_matrices import Profile, ProfileInfo
from bac.profile_source import Source
from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.profiling.request import USUAL, ProfileSettings
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.light_diffusers import DDPMScheduler

PUBLISHED_NOISE = noise_digest(
    DDPMScheduler(num_train_timesteps=100, beta_start=1e-4, beta_end=0.02, beta_schedule="squaredcos_cap_v2")
)


@dataclass(frozen=True)
class ProfileIdentity:
    """The network and the sampler that a profile belongs to.

    Attributes:
        sampler, steps: the sampler's derived name and its number of denoising steps.
        noise: digest of the noise schedule that the checkpoint was trained with; None: that of the published
            configurations of Diffusion Policy.
    """

    checkpoint_hash: str
    weights: str
    sampler: str
    steps: int
    noise: str | None

    @classmethod
    def of(cls, experiment: Experiment) -> ProfileIdentity:
        noise = noise_digest(experiment.own_sampler.scheduler)
        return cls(
            checkpoint_hash=experiment.loaded.hash,
            weights=experiment.loaded.weights,
            sampler=experiment.sampler_name,
            steps=experiment.steps,
            noise=None if noise == PUBLISHED_NOISE else noise,
        )

    def differences(self, info: ProfileInfo) -> list[str]:
        """Where a profile is of something else, in words."""
        network_and_sampler = asdict(self)
        own = network_and_sampler.pop("noise") or PUBLISHED_NOISE
        other = Source.parse(info.source).noise or PUBLISHED_NOISE
        differs = info.differences(**network_and_sampler)
        return differs + ([] if other == own else [f"noise schedule {other} instead of {own}"])


def other_settings(info: ProfileInfo, request: ProfileSettings) -> list[str]:
    """Where a profile was measured in another way than asked for, in words."""
    source = Source.parse(info.source)
    measured = {
        "source": source.kind,
        **info.known_settings,
        "n_observations": info.observations,
        "noise_seeds": info.noise_seeds,
    }
    if source.all_seen and (request.n_observations or 0) >= info.observations:
        measured["n_observations"] = request.n_observations  # so many were not to be had
    differs = [
        f"{name} {measured.get(name)} there, {value} asked for"
        for name, value in request.requested.items()
        if measured.get(name) != value
    ]
    # More observations and seeds are a better estimate of the same averages; fewer are a worse one, and not what is
    # meant by default.
    if request.n_observations is None and info.observations < USUAL.n_observations and not source.all_seen:
        differs.append(f"n_observations {info.observations} there, usually {USUAL.n_observations} at least")
    if request.n_episodes is None and measured.get("n_episodes", USUAL.n_episodes) < USUAL.n_episodes:
        differs.append(f"n_episodes {measured['n_episodes']} there, usually {USUAL.n_episodes} at least")
    if request.noise_seeds is None and len(info.noise_seeds) < len(USUAL.noise_seeds):
        differs.append(f"noise_seeds {list(info.noise_seeds)} there, usually {len(USUAL.noise_seeds)} at least")
    return differs


def read_info(folder: Path) -> ProfileInfo | None:
    """What the profile in `folder` is of, None if there is none.

    Raises:
        ConfigError: it is damaged or incomplete; the message says what to do.
    """
    stored, arrays = folder / "profile.json", folder / "profile.npz"
    if not stored.exists():
        return None
    if not arrays.exists():
        raise ConfigError(
            f"{stored} is there but not {arrays}: restore it, or remove profile.json, after which it is measured anew"
        )
    try:
        return Profile.read_info(folder)
    except ValueError as error:
        raise ConfigError(
            f"{stored} is damaged ({error}): restore it, or remove it, after which the profile is measured anew"
        ) from error


def load_profile(folder: Path) -> Profile:
    """The profile in `folder`.

    Raises:
        ConfigError: it is damaged; the message says what to do.
    """
    try:
        return Profile.load(folder)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{folder / 'profile.npz'} is damaged ({type(error).__name__}: {error}): restore it, "
            "or remove profile.json beside it, after which the profile is measured anew"
        ) from error


def of_schedule(schedule: Schedule) -> ProfileInfo:
    """The profile that a schedule says it was made from."""
    origin = schedule.provenance
    return ProfileInfo(
        checkpoint_hash=origin.checkpoint_hash or "",
        weights=origin.weights or "",
        sampler=origin.sampler or "",
        steps=schedule.steps,
        observations=origin.observations or 0,
        noise_seeds=origin.seeds,
        source=str(origin.extras.get("observations_from", "")),
    )


def same_origin(one: ProfileInfo, other: ProfileInfo) -> bool:
    names = ("checkpoint_hash", "weights", "sampler", "steps", "observations", "noise_seeds", "source")
    return all(getattr(one, name) == getattr(other, name) for name in names)
