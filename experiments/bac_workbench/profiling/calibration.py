"""Calibrated samplers of a checkpoint: measured on states it visits, stored with its hash."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rich.progress import Progress

from bac.calibration import Calibration, calibrate
from bac.profile_source import describe_dataset, describe_rollouts
from bac.samplers.grid_loop import GridLoop
from bac_workbench.locations import roots
from bac_workbench.profiling.observations import evenly, recorded_observations, visited_observations
from bac_workbench.profiling.request import USUAL, ProfileSettings
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.samplers import name_of
from bac_workbench.setup.task import has_simulator
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked
from diffusion_policy.env_runner.observation import apply


def calibrate_sampler(experiment: Experiment, say: Callable[[str], None] = print) -> tuple[Calibration, Path]:
    """Calibrates the experiment's sampler and stores what was found; and the file.

    Raises:
        ConfigError: the sampler has no grid, the checkpoint's own is no full policy to follow, or a calibration of this
            checkpoint and sampler is stored and not to be replaced.
        LockedError: another process is calibrating.
    """
    sampler, loaded = experiment.sampler, experiment.loaded
    if not isinstance(sampler, GridLoop):
        raise ConfigError(
            f"{experiment.sampler_name} is spaced by diffusers and has no timesteps of its own to move: "
            "use sampler=ancestral5, or add sampler.spacing=even"
        )
    root = roots(Path(experiment.settings.assets_dir))[0]
    folder = root / experiment.settings.task.name / "samplers"
    path = folder / f"{experiment.sampler_name}-{loaded.hash[:12]}.json"
    if path.exists() and not experiment.settings.overwrite:
        raise ConfigError(f"{path} holds a calibration of this checkpoint and sampler: overwrite=true replaces it")
    how = ProfileSettings.of(experiment.settings.profile).completed(USUAL)
    with locked(folder, f"calibrating {experiment.sampler_name}"), Progress(transient=True) as bar:
        inputs, held_out, origin = _states(experiment, how, bar)
        say(f"calibrating {experiment.sampler_name} on {len(inputs)} states, checked on {len(held_out)} others")
        found = calibrate(
            experiment.policy,
            sampler.settings,
            inputs,
            held_out,
            how.noise_seeds,
            batch_size=how.batch_size,
            progress=lambda grid, error: say(f"error {error:.4f} with {list(grid)}"),
        )
        stored = {
            "checkpoint_hash": loaded.hash,
            "weights": loaded.weights,
            "sampler": experiment.sampler_name,
            "calibrated": name_of(GridLoop(experiment.own_sampler, found.settings), experiment.own_sampler),
            "states_from": origin,
        }
        write_json(path, {**stored, **found.to_dict()})
    return found, path


def _states(experiment: Experiment, how: ProfileSettings, bar: Progress):
    """Inputs of the states to fit and of those to check on, and where they come from."""
    task, policy = experiment.settings.task, experiment.policy
    source = how.source or ("rollouts" if has_simulator(task) else "dataset")
    if source == "rollouts":
        parts = [
            visited_observations(experiment.with_sampler({}), how.n_episodes, first, how.n_observations, bar)[0]
            for first in (how.seed_start, how.seed_start + how.n_episodes)
        ]
        origin = describe_rollouts(how.seed_start, 2 * how.n_episodes)
    else:
        twice, available = recorded_observations(task, policy, 2 * how.n_observations)
        size = len(evenly(available, 2 * how.n_observations))
        parts = [apply(lambda rows, part=part: rows[part], twice) for part in (slice(0, size, 2), slice(1, size, 2))]
        origin = describe_dataset(available)
    fitted, checked = (policy.sampler_inputs(as_tensors(part)) for part in parts)
    return fitted, checked, origin


def as_overrides(found: Calibration) -> str:
    """The calibrated sampler as it is typed: sampler.type=ancestral sampler.timesteps=[80,53,26,7,1]."""
    settings = found.settings
    words = [f"sampler.type={settings.kind}", f"sampler.timesteps=[{','.join(map(str, settings.timesteps))}]"]
    usual = {field.name: field.default for field in dataclasses.fields(settings)}
    names = {"eta": "eta", "order": "solver_order", "reclip": "use_clipped_model_output"}
    if settings.kind != "dpmpp":
        names["coupled"] = "coupled"
    for field, option in names.items():
        value = getattr(settings, field)
        if value not in (None, usual[field]) and (settings.kind, field, value) != ("ancestral", "coupled", True):
            words.append(f"sampler.{option}={str(value).lower()}")
    return " ".join(words)
