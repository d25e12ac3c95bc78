"""Episodes of candidates on blocks of seeds, kept in folders like those of an evaluation: nothing runs twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from bac_workbench.evaluation.evaluate import roll_out
from bac_workbench.evaluation.folder import evaluation_settings, open_output_dir, resume
from bac_workbench.settings.evaluation import Evaluation
from bac_workbench.setup.experiment import Experiment
from bac_workbench.tuning.candidates import FULL, Candidate, Candidates
from diffusion_policy.env_runner.episodes import EpisodeResult
from diffusion_policy.env_runner.task import Seeds

CAPACITY = 10_000  # seeds of a block; a block's folder stays the same however many of them are used


class Block:
    """Seeds `start`, `start` + 1, ... and what every candidate did on them.

    Args:
        folder: one folder below it for each candidate.
        on_episode: is called with the candidate's name and each episode, also with those that were there already.

    Raises:
        ConfigError: a folder holds episodes of something else.
    """

    def __init__(
        self,
        candidates: Candidates,
        folder: Path,
        start: int,
        say: Callable[[str], None],
        on_episode: Callable[[str, EpisodeResult], None],
    ):
        self.candidates, self.folder, self.start = candidates, folder, start
        self._say, self._on_episode = say, on_episode
        self._known: dict[str, list[EpisodeResult]] = {}

    def results(self, name: str, n: int) -> list[EpisodeResult]:
        """The first `n` episodes of a candidate; those that are not there are rolled out."""
        candidate = self.candidates[name]
        experiment = on_seeds(candidate, self.start)
        episodes = experiment.task.episodes()
        folder = self.folder / candidate.folder
        if name not in self._known:
            settings = evaluation_settings(experiment, candidate.computed, episodes)
            _, self._known[name] = resume(folder, settings, episodes, False, self._say)
            for result in self._known[name]:
                self._on_episode(name, result)
        known = {result.index: result for result in self._known[name]}
        todo = [episode for episode in episodes[:n] if episode.index not in known]
        if todo:
            fresh, _ = roll_out(
                experiment,
                candidate.schedule,
                todo,
                episodes,
                folder,
                lambda result: self._on_episode(name, result),
            )
            known |= {result.index: result for result in fresh}
        self._known[name] = [known[index] for index in sorted(known)]
        return self._known[name][:n]

    def play(self, name: str, n: int) -> tuple[list[float], list[float]]:
        """Scores of a candidate and of the full policy on the first `n` seeds."""
        own, full = self.results(name, n), self.results(FULL, n)
        return [result.score for result in own], [result.score for result in full]


def on_seeds(candidate: Candidate, start: int) -> Experiment:
    """The candidate's experiment with a block's seeds as its test episodes, as the evaluation's rooms expect it."""
    experiment = candidate.experiment
    settings, task = experiment.settings, experiment.settings.task
    seeds = task.seeds.replace(test_start_seed=start)
    rollouts = Evaluation(n_test=CAPACITY, n_train=0, n_videos=0, **settings.rollouts.to_dict())
    return dataclasses.replace(
        experiment,
        settings=settings.replace(task=task.replace(seeds=seeds), eval=rollouts, precision=candidate.precision),
        simulated=dataclasses.replace(experiment.task, seeds=Seeds(n_test=CAPACITY, test_start_seed=start)),
    )


def open_folder(experiment: Experiment) -> Path:
    """The folder of a checkpoint's tunings; created.

    Raises:
        ConfigError: nothing can be written there.
    """
    settings = experiment.settings
    base = Path("results") / settings.task.name / "tuning" / experiment.loaded.hash[:12]
    return open_output_dir(experiment, settings.output_dir or base)
