"""Episodes of candidates on blocks of seeds, kept in folders like those of an evaluation: nothing runs twice."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bac_workbench.evaluation.evaluate import roll_out
from bac_workbench.evaluation.folder import evaluation_settings, open_output_dir, resume
from bac_workbench.settings.evaluation import Evaluation
from bac_workbench.setup.experiment import Experiment
from bac_workbench.tuning.candidates import FULL, Candidate, Candidates
from diffusion_policy.common.lock import LockedError, locked, wait_for
from diffusion_policy.env_runner.episodes import EpisodeResult
from diffusion_policy.env_runner.task import Seeds

#: roll_out_beside(block, names, n): afterwards the first n episodes of these candidates are in the block's folder
RollOutBeside = Callable[["Block", Sequence[str], int], None]
CAPACITY = 10_000  # seeds of a block; a block's folder stays the same however many of them are used


class Block:
    """Seeds `start`, `start` + 1, ... and what every candidate did on them.

    Args:
        folder: one folder below it for each candidate.
        on_episode: is called with the candidate's name and each episode, also with those that were there already.
        roll_out_beside: rolls several candidates out beside each other; see `prepare`.

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
        roll_out_beside: RollOutBeside | None = None,
    ):
        self.candidates, self.folder, self.start = candidates, folder, start
        self._say, self._on_episode = say, on_episode
        self._roll_out_beside = roll_out_beside
        self._known: dict[str, list[EpisodeResult]] = {}
        self._told: dict[str, set[int]] = {}

    def prepare(self, names: Sequence[str], n: int) -> None:
        """Rolls out what is missing of the first `n` seeds of candidates and of the full policy, if a launcher does.

        Without one, `results` does it, one candidate after the other. The episodes are the same, bit for bit.
        """
        if self._roll_out_beside is None:
            return
        missing = []
        for name in (FULL, *names):
            with self._held(name):
                if len(self._read(name)) < n:
                    missing.append(name)
        if missing:
            self._roll_out_beside(self, missing, n)
            for name in missing:
                del self._known[name]

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[Path]:
        """The candidate's folder, locked; what a launcher runs may outlive its tuning, and is waited for."""
        folder = self.folder / self.candidates[name].folder
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(folder, f"rollouts of {name}"))
                    break
                except LockedError as error:
                    self._say(f"waiting: {error}")
                    wait_for(error.file)
            yield folder

    def _read(self, name: str) -> list[EpisodeResult]:
        """The stored episodes of a candidate, in order."""
        if name not in self._known:
            candidate = self.candidates[name]
            experiment = on_seeds(candidate, self.start)
            episodes = experiment.task.episodes()
            settings = evaluation_settings(experiment, candidate.computed, episodes)
            _, known = resume(self.folder / candidate.folder, settings, episodes, False, self._say)
            self._known[name] = sorted(known, key=lambda result: result.index)
            for result in known:
                self._tell(name, result)
        return self._known[name]

    def _tell(self, name: str, result: EpisodeResult) -> None:
        told = self._told.setdefault(name, set())
        if result.index not in told:
            told.add(result.index)
            self._on_episode(name, result)

    def results(self, name: str, n: int) -> list[EpisodeResult]:
        """The first `n` episodes of a candidate; those that are not there are rolled out."""
        candidate = self.candidates[name]
        with self._held(name) as folder:
            if len(self._known.get(name, ())) < n:
                self._known.pop(name, None)
            known = {result.index: result for result in self._read(name)}
            experiment = on_seeds(candidate, self.start)
            episodes = experiment.task.episodes()
            todo = [episode for episode in episodes[:n] if episode.index not in known]
            if todo:
                fresh, _ = roll_out(
                    experiment, candidate.schedule, todo, episodes, folder, lambda result: self._tell(name, result)
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
    rollouts = Evaluation(n_test=CAPACITY, n_train=0, n_videos=0, overlap="auto", **settings.rollouts.to_dict())
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
