"""Holding costs of a checkpoint with a sampler: the stored ones that fit, or new ones, measured once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.progress import Progress

from bac.figures import plot_costs
from bac.holding import HoldingCosts
from bac.horizon import executed_tokens
from bac.sensitivity import holding_costs
from bac.sensitivity_files import SensitivityInfo, load, save
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.profiles import Say, info_of, observe
from bac_workbench.profiling.request import USUAL, ProfileSettings
from bac_workbench.profiling.sensitivity_identity import Wanted, stored_costs
from bac_workbench.setup.acting import as_tensors
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.lock import locked


def costs_for(
    experiment: Experiment, say: Say = print, usual: ProfileSettings = USUAL
) -> tuple[SensitivityInfo, HoldingCosts, Path]:
    """The stored holding costs that fit the experiment's cache, or new ones, measured once; and their folder.

    Args:
        say: is told what is done.
        usual: where the states come from if the settings leave it open.

    Raises:
        LockedError: another process is measuring them.
    """
    assets, wanted = Assets.of(experiment), Wanted.of(experiment)
    folder, task = costs_folder(assets, wanted), experiment.settings.task.name
    if folder is None:
        folder = assets.free_for(f"{wanted.name}.json")
        with locked(folder, f"measuring holding costs of {task}"):
            if costs_folder(assets, wanted) is None:  # another process may have finished just now
                say(
                    f"no holding costs fit checkpoint {experiment.loaded.hash[:12]} with {experiment.sampler_name}: "
                    f"measuring now, once, into {folder}"
                )
                info, costs = measure_costs(experiment, say, usual)
                save(info, costs, folder, wanted.name)
                plot_costs(costs, folder / "figures" / f"{wanted.name}.png")
        folder = costs_folder(assets, wanted) or folder
    info, costs = load(folder, wanted.name)
    say(f"holding costs: {folder / wanted.name}.npz ({info.origin.observations} states, {info.origin.source})")
    return info, costs, folder


def costs_folder(assets: Assets, wanted: Wanted) -> Path | None:
    """Where holding costs are that fit."""
    for folder in assets.folders():
        info = stored_costs(folder, wanted.name)
        if info is not None and not wanted.differences(info):
            return folder
    return None


def measure_costs(experiment: Experiment, say: Say, usual: ProfileSettings) -> tuple[SensitivityInfo, HoldingCosts]:
    """Takes the gradients of the full policy on states that it visits; see `profiles.observe` for errors."""
    wanted, policy = Wanted.of(experiment), experiment.policy
    cache = wanted.cache
    how = dataclasses.replace(wanted.request.completed(usual), n_observations=cache.n_states)
    with Progress(transient=True) as bar:
        observations, source = observe(experiment, how, say, bar)
        inputs = policy.sampler_inputs(as_tensors(observations))
        job = bar.add_task("differentiating the denoising chain", total=len(inputs))
        costs = holding_costs(
            experiment.sampler,
            inputs,
            policy.chunk,
            tokens=executed_tokens(policy),
            draws=cache.draws,
            seed=cache.seed,
            action_dim=policy.action_dim,
            progress=lambda done, total: bar.update(job, completed=done),
        )
    origin = info_of(experiment, len(inputs), (cache.seed,), source)
    return SensitivityInfo(origin, cache.draws, wanted.chunk), costs
