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
    from pathlib import Path

    from bac_workbench.evaluation.evaluate import Evaluation
    from bac_workbench.setup.experiment import Experiment
    from bac_workbench.tracking.identity import Identity
    from diffusion_policy.env_runner.episodes import EpisodeResult


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
    from bac_workbench.evaluation.folder import default_output_dir, open_output_dir
    from bac_workbench.evaluation.report import levers_line, metrics_table, summary_table, throughput_line
    from bac_workbench.tracking.evaluations import evaluation_media, evaluation_summary
    from bac_workbench.tracking.run import Tracker

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
    label = default_output_dir(experiment).name
    config = {**experiment.to_dict(), **facts_of(experiment)}
    go_on = not settings.overwrite
    with Tracker(settings.wandb, identity_of(experiment, label), config, console.print, output_dir, go_on) as run:
        with progress_bar() as bar:
            episodes = EpisodeProgress(bar, len(experiment.task.episodes()))

            def on_episode(result: EpisodeResult) -> None:
                episodes(result)
                run.log({"progress/episodes": len(episodes.scores), "progress/score": result.score})

            evaluation = evaluate(experiment, output_dir, bar.console.print, on_episode, run.start, in_cell())
        run.summarise(evaluation_summary(evaluation.results, evaluation.benchmark))
        maps = similarity_maps(experiment)
        run.log_media(lambda wandb: evaluation_media(wandb, evaluation.episodes, output_dir, maps))
    console.print(summary_table([evaluation.results], [evaluation.benchmark]))
    if evaluation.benchmark is not None:
        console.print(levers_line(evaluation.benchmark))
    if (metrics := metrics_table(evaluation.results)) is not None:
        console.print(metrics)
    console.print(throughput_line(evaluation.results))
    console.print(f"results: {output_dir}")
    return evaluation


def identity_of(experiment: Experiment, label: str) -> Identity:
    """What the run of an evaluation is called in Weights & Biases."""
    from bac_workbench.provenance import hardware
    from bac_workbench.tracking.identity import Identity, cache_tags, hardware_tag

    settings, machine = experiment.settings, hardware_tag(hardware(experiment.device))
    rounded = [] if settings.precision == "fp32" else [settings.precision]
    tags = [*cache_tags(experiment.cache), experiment.sampler_name, settings.runtime, *rounded, machine]
    return Identity.of(settings.task.name, "eval", label, tags)


def facts_of(experiment: Experiment) -> dict[str, str]:
    """What the run of an evaluation is found by in Weights & Biases, whatever it is called there."""
    from bac_workbench.settings.caches import method_of

    settings, cache = experiment.settings, experiment.cache
    rounded = "" if settings.precision == "fp32" else f" {settings.precision}"
    return {
        "task_name": settings.task.name,
        "method": method_of(cache.label),
        "setting": f"{cache.label}@{experiment.sampler_name} {settings.runtime}{rounded}",
        "checkpoint_hash": experiment.loaded.hash,
    }


def similarity_maps(experiment: Experiment) -> Path | None:
    """The picture of the profile that the cache needs, if it needs one and it is here."""
    from bac_workbench.profiling.assets import Assets
    from bac_workbench.profiling.pictures import similarity_picture

    folder = Assets.of(experiment).profile_folder() if experiment.cache.needs_profile else None
    return None if folder is None else similarity_picture(folder)


def sweep_notes(n_chunks: int) -> list[str]:
    if cells_at_once() == 1 or n_chunks == 0:
        return []
    return [
        f"up to {cells_at_once()} cells run beside each other on this machine, which disturbs the times that are "
        "measured: leave them out with benchmark.n_chunks=0, and measure them with bac benchmark"
    ]
