"""The profile of a checkpoint with a sampler: the stored one that fits, or a new one, measured once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from bac.profiling import Profile, ProfileInfo, profile_features
from bac.sampler_name import noise_digest
from bac_workbench.evaluation.acting import as_tensors
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.observations import recorded_observations, visited_observations
from bac_workbench.profiling.pictures import draw_profile, missing_pictures
from bac_workbench.profiling.profile_settings import (
    ALL_SEEN,
    PUBLISHED_NOISE,
    THOROUGH,
    USUAL,
    ProfileSettings,
    load_profile,
)
from bac_workbench.setup.experiment import Experiment, has_simulator
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked

Say = Callable[[str], None]


def profile_for(experiment: Experiment, say: Say = print, usual: dict[str, Any] = USUAL) -> tuple[Profile, Path]:
    """The stored profile that fits, or a new one, measured once; and its folder.

    Raises:
        LockedError: another process is measuring it.
    """
    assets = Assets(experiment)
    folder = assets.profile_folder()
    if folder is None:
        for line in assets.measured_otherwise():
            say(line)
        folder = assets.writable()
        with locked(folder, f"profiling {experiment.cfg.task.name}"):
            if assets.profile_folder() is None:  # another process may have finished just now
                say(
                    f"no profile fits checkpoint {experiment.loaded.hash[:12]} with {experiment.sampler}: profiling now, once, into {folder}"
                )
                profile = measure(experiment, say, usual)
                profile.save(folder)
                draw_profile(profile, folder)
        folder = assets.profile_folder() or folder
    profile = load_profile(folder)
    say(
        f"profile: {folder / 'profile.npz'} ({profile.info.observations} observations, noise seeds {list(profile.info.noise_seeds)}, "
        f"{profile.info.source})"
    )
    if missing_pictures(profile, folder) and folder in [assets.roots[0] / relative for relative in assets.relative]:
        with locked(folder, f"drawing the profile of {experiment.cfg.task.name}"):
            draw_profile(profile, folder)
    return profile, folder


def replace_profile(experiment: Experiment, say: Say = print, usual: dict[str, Any] = THOROUGH) -> tuple[Profile, Path]:
    """Measures anew; the profile of this checkpoint and sampler that is there goes, with its schedules and pictures."""
    folder = Assets(experiment).replaceable()
    with locked(folder, f"profiling {experiment.cfg.task.name} anew"):
        profile = measure(experiment, say, usual)
        # What describes or follows from the other profile goes first: a kill leaves no mixture.
        for stale in [
            folder / "profile.json",
            *(folder / "schedules").glob("*.json"),
            *(folder / "figures").glob("*.png"),
        ]:
            stale.unlink(missing_ok=True)
        profile.save(folder)
        draw_profile(profile, folder)
    return profile, folder


def measure(experiment: Experiment, say: Say, usual: dict[str, Any]) -> Profile:
    """Profiles the policy; what `cfg.profile` leaves open is as in `usual`."""
    ask = ProfileSettings.of(experiment.cfg.profile)
    values = {name: getattr(ask, name) if getattr(ask, name) is not None else value for name, value in usual.items()}
    source = ask.source or ("rollouts" if has_simulator(experiment.cfg) else "dataset")
    if source == "dataset" and (ask.n_episodes, ask.seed_start) != (None, None):
        raise ConfigError(
            f"task {experiment.cfg.task.name} has no simulator and is profiled on its data set: "
            "leave profile.n_episodes and profile.seed_start out"
        )
    wanted, seeds = values["n_observations"], values["noise_seeds"]
    with Progress(transient=True) as bar:
        if source == "rollouts":
            first, n = values["seed_start"], values["n_episodes"]
            observations, seen = visited_observations(experiment, n, first, wanted, bar)
            origin = f"rollouts of the full policy from seeds {first}..{first + n - 1}"
        else:
            say("profiling on observations of the task's data set")
            observations, seen = recorded_observations(experiment, wanted)
            origin = f"windows of the task's data set, {seen} in all"
        if (noise := noise_digest(experiment.own.scheduler)) != PUBLISHED_NOISE:
            origin += f", noise schedule {noise}"
        inputs = experiment.policy.sampler_inputs(as_tensors(observations))
        job = bar.add_task("profiling block features", total=len(inputs) * len(seeds))
        matrices = profile_features(
            experiment.base,
            inputs,
            seeds,
            ask.batch_size,
            lambda done, total: bar.update(job, completed=done),
        )
    info = ProfileInfo(
        experiment.loaded.hash,
        experiment.loaded.weights,
        experiment.sampler,
        experiment.base.num_inference_steps,
        len(inputs),
        seeds,
        origin + (ALL_SEEN if seen < wanted else ""),
    )
    return Profile(info, matrices)
