"""Following a certificate: the sampler and the schedule that a tuning chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.solver import UnsupportedSolver, solver_of
from bac.tuned import FILE, Tuned
from bac_workbench.locations import roots
from bac_workbench.settings.tuned import Certified
from bac_workbench.setup.samplers import resolved
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from bac_workbench.setup.experiment import Experiment

KINDS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp"}


def find_tuned(experiment: Experiment) -> tuple[Tuned, Path]:
    """The certificate of this task and checkpoint: in the working directory, where this project is, or beside the
    policy itself, as in a folder from the Hugging Face Hub.

    Raises:
        ConfigError: there is none.
        TunedError: it is damaged, or of another policy only.
    """
    settings = experiment.settings
    relative = Path(settings.task.name) / FILE
    places = [*(root / relative for root in roots(settings.assets_dir)), experiment.loaded.source.parent / FILE]
    found = [path for path in places if path.exists()]
    if not found:
        raise ConfigError(
            f"cache=tuned follows {Path(settings.assets_dir) / relative}, which is not there: "
            f"make it with bac tune task={settings.task.name}"
        )
    certificates = [(Tuned.load(path), path) for path in found]
    for tuned, path in certificates:
        if tuned.identity.checkpoint_hash == experiment.loaded.hash:
            tuned.check(experiment.policy, experiment.own_sampler)
            return tuned, path
    certificates[0][0].check(experiment.policy, experiment.own_sampler)
    raise ConfigError(f"{found[0]} is the certificate of another checkpoint")


def followed(experiment: Experiment) -> Experiment:
    """With the sampler and the schedule of the certificate.

    Raises:
        ConfigError: there is none, or the settings contradict it.
        TunedError: it is of another policy.
    """
    tuned, path = find_tuned(experiment)
    settings = experiment.settings
    if settings.precision != tuned.precision:
        raise ConfigError(
            f"{path} is of precision={tuned.precision}, which changes the actions: use that, not {settings.precision}"
        )
    sampler = tuned.loop(experiment.own_sampler)
    cache = Certified(
        name=str(tuned.details["cache"]),
        stored=tuned.schedule,
        note=f"follows {path}, runtime {tuned.runtime}: {tuned}",
    )
    return dataclasses.replace(
        experiment, sampler=sampler, sampler_settings=resolved(sampler, experiment.own_sampler, {}), cache=cache
    )


def stored_settings_of(experiment: Experiment) -> GridSettings | None:
    """An experiment's sampler as a certificate holds it; None: the checkpoint's own.

    Raises:
        ConfigError: no grid sampler computes the same.
    """
    loop: Any = experiment.sampler
    if experiment.sampler_name == experiment.own_sampler_name:
        return None
    if isinstance(loop, GridLoop):
        return loop.settings
    wanted = None
    try:
        solver = solver_of(loop)
        kind = KINDS[type(loop.scheduler).__name__]
        options = {"coupled": False, "reclip": bool(loop.step_kwargs.get("use_clipped_model_output", False))}
        wanted = GridSettings(
            kind,
            tuple(int(t) for t in solver.timesteps),
            eta=float(loop.step_kwargs.get("eta", 0.0)),
            **(options if kind == "ddim" else {"coupled": False}),
        )
        same = GridLoop(experiment.own_sampler, wanted).solver()
        equal = same.table.shape == solver.table.shape and np.allclose(same.table, solver.table, rtol=1e-5, atol=1e-6)
    except (UnsupportedSolver, KeyError, ValueError):
        equal = False
    if not equal:
        raise ConfigError(
            f"sampler {experiment.sampler_name} cannot be written into a certificate: use ancestral, ddim or dpmpp "
            "with spacing= or timesteps="
        )
    return wanted
