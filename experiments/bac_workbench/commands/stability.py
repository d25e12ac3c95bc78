"""Study how much BAC's schedules depend on the observations, episodes and noise that were profiled.

bac stability task=pusht_lowdim rollouts.n_test=100
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(study_policy, "stability", __doc__)


def study_policy(cfg: DictConfig) -> None:
    from bac_workbench.console import console
    from bac_workbench.setup.experiment import load_experiment
    from bac_workbench.stability.run import study

    experiment = load_experiment(check(cfg, "stability"))
    console.print(f"task {experiment.settings.task.name}, {experiment.loaded}, {experiment.sampler_line}")
    study(experiment, lambda line: console.print(line, soft_wrap=True, markup=False))
