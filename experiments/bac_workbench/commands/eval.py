"""Evaluate a policy with a cache: bac eval task=pusht_lowdim cache=bac [cache.budget=7 sampler=ddim16 ...]

cache=full|uniform|bac|unified_acs|blockwise_acs|sacs|tuned. Profiles the policy first if no schedule fits the
checkpoint; tuned follows the certificate of bac tune. Results go to results/<task>/<cache>/; the same command after an
interruption goes on where it stopped. -m sweeps over comma-separated values, with launcher=joblib several at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from bac_workbench.settings import check, launch
from bac_workbench.settings.clock import STOPPED
from bac_workbench.sweeps.cell import Ended, cells_at_once, in_cell

if TYPE_CHECKING:
    from bac_workbench.evaluation.evaluate import Evaluation
    from bac_workbench.setup.experiment import Experiment


def main() -> None:
    launch(evaluate_policy, "eval", __doc__)


def evaluate_policy(cfg: DictConfig) -> Ended:
    from bac_workbench.setup.experiment import load_experiment

    settings = check(cfg, "eval")
    evaluation = evaluate_experiment(
        load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)
    )
    split = "" if "mean_score" in evaluation.results else "train_"
    score = f"{split.replace('_', ' ')}score {evaluation.results[f'{split}mean_score']:.3f}"
    return Ended(f"{score}, {evaluation.output_dir}", evaluation.was_there)


def evaluate_experiment(experiment: Experiment) -> Evaluation:
    """Evaluates, says what it does, and shows the results."""
    import torch

    from bac_workbench.console import EpisodeProgress, console, progress_bar
    from bac_workbench.evaluation.evaluate import evaluate
    from bac_workbench.evaluation.folder import open_output_dir
    from bac_workbench.evaluation.report import levers_line, metrics_table, summary_table, throughput_line
    from bac_workbench.tracking import start_run

    settings = experiment.settings
    experiment.task.check_workers(settings.eval.n_envs, settings.eval.n_workers)
    output_dir = open_output_dir(experiment)
    console.print(f"task {settings.task.name}, {experiment.loaded}")
    for note in [*experiment.notes, *sweep_notes(settings.benchmark.n_chunks)]:
        console.print(f"note: {note}", style="yellow")
    console.print(
        f"device {experiment.device}, {torch.get_num_threads()} threads, runtime {settings.runtime}, "
        f"{experiment.sampler_line}"
    )
    if settings.eval.clock == STOPPED:  # else the tokens depend on the latency
        console.print(f"denoising {experiment.tokens}")
    run = start_run(settings.wandb, experiment.to_dict(), output_dir.name)
    with progress_bar() as bar:
        episodes = EpisodeProgress(bar, len(experiment.task.episodes()))
        evaluation = evaluate(experiment, output_dir, bar.console.print, episodes, keep_finished=in_cell())
    console.print(summary_table([evaluation.results], [evaluation.benchmark]))
    if evaluation.benchmark is not None:
        console.print(levers_line(evaluation.benchmark))
    if (metrics := metrics_table(evaluation.results)) is not None:
        console.print(metrics)
    console.print(throughput_line(evaluation.results))
    console.print(f"results: {output_dir}")
    if run is not None:
        run.summary.update({k: v for k, v in evaluation.results.items() if isinstance(v, (int, float))})
        run.finish()
    return evaluation


def sweep_notes(n_chunks: int) -> list[str]:
    if cells_at_once() == 1 or n_chunks == 0:
        return []
    return [
        f"up to {cells_at_once()} cells run beside each other on this machine, which disturbs the times that are "
        "measured: leave them out with benchmark.n_chunks=0, and measure them with bac benchmark"
    ]
