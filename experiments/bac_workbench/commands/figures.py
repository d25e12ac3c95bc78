"""Draw how a policy's activations change from step to step, and what caching does to them.

bac figures task=pusht_lowdim
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(draw_policy, "figures", __doc__)


def draw_policy(cfg: DictConfig) -> None:
    from bac_workbench.console import console
    from bac_workbench.figures.run import make_figures
    from bac_workbench.setup.experiment import load_experiment

    settings = check(cfg, "figures").on_chosen_dataset()
    experiment = load_experiment(settings, needs_simulator=False)  # demonstrations serve, too
    console.print(f"task {settings.task.name}, {experiment.loaded}, {experiment.sampler_line}")
    make_figures(experiment, lambda line: console.print(line, soft_wrap=True, markup=False))
