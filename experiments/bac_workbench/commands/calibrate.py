"""Move the timesteps of a few-step sampler to where its actions are nearest to the full policy's.

bac calibrate task=pusht_lowdim sampler=ancestral5
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(calibrate_timesteps, "calibrate", __doc__)


def calibrate_timesteps(cfg: DictConfig) -> None:
    from bac_workbench.console import console
    from bac_workbench.profiling.calibration import as_overrides, calibrate_sampler
    from bac_workbench.setup.experiment import load_experiment

    settings = check(cfg, "calibrate")
    experiment = load_experiment(settings, needs_simulator=False)  # a data set serves, too
    console.print(f"task {settings.task.name}, {experiment.loaded}, {experiment.sampler_line}")
    found, path = calibrate_sampler(experiment, console.print)
    console.print(
        f"error of the executed actions {found.error_before:.4f} -> {found.error_after:.4f}, "
        f"on other states {found.held_out_before:.4f} -> {found.held_out_after:.4f} "
        f"({found.tried} grids, {len(found.trace) - 1} moves)"
    )
    if found.better:
        task = settings.task.name
        console.print(f"to use it: bac eval task={task} cache=full {as_overrides(found)}", soft_wrap=True, markup=False)
    else:
        console.print(f"on other states the error did not fall: keep {experiment.sampler_name}")
    console.print(f"stored in {path}; whether episodes go as well, bac eval tells")
