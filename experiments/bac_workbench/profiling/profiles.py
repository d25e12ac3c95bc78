"""The profile of a checkpoint with a sampler: the stored one that fits, or a new one, measured once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.progress import Progress

from bac.profile_source import describe, describe_dataset, describe_rollouts
from bac.profiling import Profile, ProfileInfo, profile_features
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.identity import ProfileIdentity, load_profile
from bac_workbench.profiling.observations import recorded_observations, visited_observations
from bac_workbench.profiling.pictures import draw_profile, missing_pictures
from bac_workbench.profiling.request import THOROUGH, USUAL, ProfileSettings
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.task import has_simulator
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked
from diffusion_policy.env_runner.observation import Observation

Say = Callable[[str], None]


def profile_for(experiment: Experiment, say: Say = print, usual: ProfileSettings = USUAL) -> tuple[Profile, Path]:
    """The stored profile that fits, or a new one, measured once; and its folder.

    Args:
        say: is told what is done.
        usual: how to measure what the settings leave open.

    Raises:
        LockedError: another process is measuring it.
    """
    assets, task = Assets.of(experiment), experiment.settings.task.name
    folder = assets.profile_folder()
    if folder is None:
        for line in assets.measured_otherwise():
            say(line)
        folder = assets.writable()
        with locked(folder, f"profiling {task}"):
            if assets.profile_folder() is None:  # another process may have finished just now
                say(
                    f"no profile fits checkpoint {experiment.loaded.hash[:12]} with {experiment.sampler_name}: "
                    f"profiling now, once, into {folder}"
                )
                profile = measure(experiment, say, usual)
                profile.save(folder)
                draw_profile(profile, folder)
        folder = assets.profile_folder() or folder
    profile = load_profile(folder)
    info = profile.info
    seeds = list(info.noise_seeds)
    say(f"profile: {folder / 'profile.npz'} ({info.observations} observations, noise seeds {seeds}, {info.source})")
    if missing_pictures(profile, folder) and assets.is_writable(folder):
        with locked(folder, f"drawing the profile of {task}"):
            draw_profile(profile, folder)
    return profile, folder


def replace_profile(
    experiment: Experiment, say: Say = print, usual: ProfileSettings = THOROUGH
) -> tuple[Profile, Path]:
    """Measures anew; the profile of this checkpoint and sampler that is there goes, with its schedules and pictures."""
    folder = Assets.of(experiment).replaceable()
    with locked(folder, f"profiling {experiment.settings.task.name} anew"):
        profile = measure(experiment, say, usual)
        # What describes or follows from the other profile goes first: a kill leaves no mixture.
        for stale in [
            folder / "profile.json",
            *folder.glob("sensitivity*.json"),
            *(folder / "schedules").glob("*.json"),
            *(folder / "figures").glob("*.png"),
        ]:
            stale.unlink(missing_ok=True)
        profile.save(folder)
        draw_profile(profile, folder)
    return profile, folder


def measure(experiment: Experiment, say: Say, usual: ProfileSettings) -> Profile:
    """Profiles the policy; what the settings leave open is as in `usual`. See `observe` for errors."""
    policy = experiment.policy
    request = ProfileSettings.asked(experiment)
    how = request.completed(usual)
    with Progress(transient=True) as bar:
        observations, source = observe(experiment, how, say, bar)
        inputs = policy.sampler_inputs(as_tensors(observations))
        # Features are compared over all tokens, as the paper does, also where fewer reach the executed actions: its
        # methods stay what they are.
        job = bar.add_task("profiling block features", total=len(inputs) * len(how.noise_seeds))
        matrices = profile_features(
            experiment.sampler,
            inputs,
            how.noise_seeds,
            how.batch_size,
            lambda done, total: bar.update(job, completed=done),
        )
    return Profile(info_of(experiment, len(inputs), how.noise_seeds, source), matrices)


def observe(experiment: Experiment, how: ProfileSettings, say: Say, bar: Progress) -> tuple[Observation, str]:
    """`how.n_observations` observations [N, To, ...], fewer where there are not as many; and their source in words.

    Raises:
        ConfigError: the settings are of rollouts, and the task has no simulator; or there are no observations.
    """
    task, request = experiment.settings.task, ProfileSettings.asked(experiment)
    source = request.source or ("rollouts" if has_simulator(task) else "dataset")
    if source != "rollouts" and (request.n_episodes, request.seed_start) != (None, None):
        raise ConfigError(
            f"task {task.name} is profiled on recorded observations: "
            "leave profile.n_episodes and profile.seed_start out"
        )
    if (recordings := experiment.recordings) is not None and source == recordings.profiled_kind:
        say(f"profiling on {recordings.describe(recordings.profiled)}")
        observations, available = recordings.sample(recordings.profiled, how.n_observations)
        for note in recordings.notes:
            say(f"note: {note}")
        origin = recordings.describe(recordings.profiled)
    elif source == "rollouts":
        say(f"rolling out the full policy, denoising {experiment.tokens}")
        observations, available = visited_observations(
            experiment, how.n_episodes, how.seed_start, how.n_observations, bar
        )
        origin = describe_rollouts(how.seed_start, how.n_episodes)
    else:
        where = task.dataset.to_dict().get("path") if task.dataset is not None else None
        say(f"profiling on observations of {where or 'the data set of the task'}")
        observations, available = recorded_observations(task, experiment.policy, how.n_observations)
        origin = describe_dataset(available) + (f", from {where}" if where else "")
    return observations, describe(origin, ProfileIdentity.of(experiment).noise, available < how.n_observations)


def info_of(experiment: Experiment, observations: int, seeds: tuple[int, ...], source: str) -> ProfileInfo:
    """What was measured, of this checkpoint with this sampler."""
    identity = ProfileIdentity.of(experiment)
    return ProfileInfo(
        checkpoint_hash=identity.checkpoint_hash,
        weights=identity.weights,
        sampler=identity.sampler,
        steps=identity.steps,
        observations=observations,
        noise_seeds=seeds,
        source=source,
    )
