"""What a profile is measured with, what a stored one is of, and whether that is what was asked for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler
from omegaconf import DictConfig

from bac.profiling import Profile, ProfileInfo
from bac.sampler_name import noise_digest
from bac.schedule import Schedule
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError

SOURCES = ("rollouts", "dataset")
#: what a profile is measured with where nothing is asked for: when an evaluation needs one, and when it is made for its own sake
USUAL = {"n_episodes": 4, "seed_start": 20000, "n_observations": 32, "noise_seeds": (0, 1)}
THOROUGH = {**USUAL, "n_episodes": 8, "n_observations": 64}
ALL_SEEN = ", which is all there were"
PUBLISHED_NOISE = noise_digest(
    DDPMScheduler(num_train_timesteps=100, beta_start=1e-4, beta_end=0.02, beta_schedule="squaredcos_cap_v2")
)


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile is measured with; None: not asked for, a stored profile has to be as careful as the usual at least."""

    source: str | None = None
    n_episodes: int | None = None
    seed_start: int | None = None
    n_observations: int | None = None
    noise_seeds: tuple[int, ...] | None = None
    batch_size: int = 4  # decides the memory it takes, not what is measured

    @classmethod
    def of(cls, section: DictConfig) -> ProfileSettings:
        """The `profile` section of a config.

        Raises:
            ConfigError: a value that no profile can be measured with.
        """
        values = {field.name: section.get(field.name) for field in fields(cls)}
        if values["source"] not in (None, "auto", *SOURCES):
            raise ConfigError(f"profile.source={values['source']} is unknown: use auto, {', '.join(SOURCES)}")
        values["source"] = None if values["source"] == "auto" else values["source"]
        for name, least in (("n_episodes", 1), ("seed_start", 0), ("n_observations", 1), ("batch_size", 1)):
            if name == "batch_size" and values[name] is None:
                values[name] = cls.batch_size
            elif values[name] is not None and (type(values[name]) is not int or values[name] < least):
                raise ConfigError(
                    f"profile.{name}={values[name]} is not possible: use a whole number of at least {least}"
                )
        seeds = values["noise_seeds"]
        if seeds is not None:
            listed = list(seeds) if not isinstance(seeds, (str, int, float)) else []
            if (
                not listed
                or any(type(seed) is not int or seed < 0 for seed in listed)
                or len(set(listed)) < len(listed)
            ):
                raise ConfigError(
                    f"profile.noise_seeds={seeds} is not possible: use at least one whole number, each once, such as [0,1]"
                )
            values["noise_seeds"] = tuple(listed)
        if values["source"] == "dataset" and (values["n_episodes"], values["seed_start"]) != (None, None):
            raise ConfigError(
                "profile.n_episodes and profile.seed_start are of rollouts: leave them out with profile.source=dataset"
            )
        return cls(**values)

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked for, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch_size"}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def folder(self) -> str:
        """A folder for a profile measured so: episodes1-observations2-noise0."""
        tags = {
            "source": "",
            "n_episodes": "episodes",
            "seed_start": "from",
            "n_observations": "observations",
            "noise_seeds": "noise",
        }
        parts = []
        for name, value in self.asked.items():
            text = "_".join(map(str, value)) if isinstance(value, tuple) else str(value)
            parts.append(tags[name] + (text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:12]))
        return "-".join(parts) or "usual"


def stored_settings(info: ProfileInfo) -> dict[str, Any]:
    """What a profile was measured with, as far as it says; the one place that reads it from a `ProfileInfo`."""
    found: dict[str, Any] = {"n_observations": info.observations, "noise_seeds": tuple(info.noise_seeds)}
    if seeds := re.match(r"rollouts of the full policy from seeds (\d+)\.\.(\d+)", info.source):
        first, last = map(int, seeds.groups())
        found |= {"source": "rollouts", "seed_start": first, "n_episodes": last - first + 1}
    elif info.source.startswith("windows of the task's data set"):
        found["source"] = "dataset"
    return found


def noise_of(info: ProfileInfo) -> str:
    """The noise schedule a profile was measured under: that of Diffusion Policy's published configurations unless it says another."""
    said = re.search(r", noise schedule ([0-9a-f]{8})", info.source)
    return said[1] if said else PUBLISHED_NOISE


def other_identity(info: ProfileInfo, experiment: Experiment) -> list[str]:
    """Where a profile is of something else than this checkpoint with this sampler."""
    now = {
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "sampler": experiment.sampler,
        "steps": experiment.base.num_inference_steps,
    }
    differs = [
        f"{name} {getattr(info, name)} there, {value} now"
        for name, value in now.items()
        if getattr(info, name) != value
    ]
    noise = noise_digest(experiment.own.scheduler)  # the hash is of the weights alone
    return differs + ([f"noise schedule {noise_of(info)} there, {noise} now"] if noise_of(info) != noise else [])


def other_settings(info: ProfileInfo, ask: ProfileSettings) -> list[str]:
    """Where a profile was measured in another way than asked for."""
    found = stored_settings(info)
    if info.source.endswith(ALL_SEEN) and (ask.n_observations or 0) >= info.observations:
        found["n_observations"] = ask.n_observations  # so many were not to be had
    differs = [
        f"{name} {found.get(name)} there, {value} asked for"
        for name, value in ask.asked.items()
        if found.get(name) != value
    ]
    # More observations and seeds are a better estimate of the same averages; fewer are a worse one, and not what is meant by default.
    if (
        ask.n_observations is None
        and info.observations < USUAL["n_observations"]
        and not info.source.endswith(ALL_SEEN)
    ):
        differs.append(f"n_observations {info.observations} there, usually {USUAL['n_observations']} at least")
    if ask.n_episodes is None and found.get("n_episodes", USUAL["n_episodes"]) < USUAL["n_episodes"]:
        differs.append(f"n_episodes {found['n_episodes']} there, usually {USUAL['n_episodes']} at least")
    if ask.noise_seeds is None and len(info.noise_seeds) < len(USUAL["noise_seeds"]):
        differs.append(f"noise_seeds {list(info.noise_seeds)} there, usually {len(USUAL['noise_seeds'])} at least")
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
        info = Profile.read_info(folder)
        if info is None or not isinstance(info.source, str) or not isinstance(info.observations, int):
            raise TypeError("it does not say what was profiled")
        return info
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{stored} is damaged ({error}): restore it, or remove it, after which the profile is measured anew"
        ) from error


def load_profile(folder: Path) -> Profile:
    """Raises ConfigError, which says what to do, if it is damaged."""
    try:
        return Profile.load(folder)
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise ConfigError(
            f"{folder / 'profile.npz'} is damaged ({type(error).__name__}: {error}): restore it, or remove profile.json beside it, "
            "after which the profile is measured anew"
        ) from error


def of_schedule(schedule: Schedule) -> ProfileInfo:
    """The profile that a schedule says it was made from."""
    origin = schedule.provenance
    return ProfileInfo(
        origin.checkpoint_hash or "",
        origin.weights or "",
        origin.sampler or "",
        schedule.steps,
        origin.observations or 0,
        origin.seeds,
        str(origin.extras.get("observations_from", "")),
    )


def same_origin(one: ProfileInfo, other: ProfileInfo) -> bool:
    names = ("checkpoint_hash", "weights", "sampler", "steps", "observations", "source")
    return all(getattr(one, name) == getattr(other, name) for name in names) and tuple(one.noise_seeds) == tuple(
        other.noise_seeds
    )
