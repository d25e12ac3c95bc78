"""Collect episodes of a policy as a data set: bac collect task=kitchen_scripted_demos cache=bac n_episodes=50

Writes a LeRobotDataset v3.0 (format=lerobot), or the layout that the released BAC project documents
(format=original). Profiles the policy first if no schedule fits the checkpoint. The same command after an
interruption goes on where it stopped; with a larger n_episodes it adds to the data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from bac_workbench.settings import check, launch

if TYPE_CHECKING:
    from bac_workbench.setup.experiment import Experiment


def main() -> None:
    launch(collect_episodes, "collect", __doc__)


def collect_episodes(cfg: DictConfig) -> None:
    from bac_workbench.setup.experiment import load_experiment

    collect_experiment(load_experiment(check(cfg, "collect")))


def collect_experiment(experiment: Experiment) -> None:
    """Collects, says what it does, and what came of it."""
    import torch

    from bac_workbench.console import EpisodeProgress, console, progress_bar
    from bac_workbench.lerobot.collection import collect, throughput

    settings = experiment.settings
    experiment.task.check_workers(settings.n_envs, settings.n_workers)
    console.print(f"task {settings.task.name}, {experiment.loaded}")
    for note in experiment.notes:
        console.print(f"note: {note}", style="yellow")
    console.print(
        f"device {experiment.device}, {torch.get_num_threads()} threads, runtime {settings.runtime}, "
        f"cache {experiment.cache.label}, {experiment.sampler_line}"
    )
    with progress_bar() as bar:
        collection = collect(experiment, bar.console.print, EpisodeProgress(bar, settings.n_episodes))
    results = collection.episodes
    successes = sum(result.success for result in results)
    left_out = f", {len(collection.left_out)} without success left out" if collection.left_out else ""
    console.print(
        f"{len(results)} episodes{left_out}: {successes} successful, "
        f"{sum(result.env_steps for result in results)} frames, "
        f"mean score {sum(result.score for result in results) / len(results):.3f}"
    )
    for line in throughput(collection):
        console.print(line)
    console.print(f"data set: {collection.output_dir}")
